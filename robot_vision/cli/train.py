"""`robot-vision train CONFIG`: from labelled images or poses to a model bundle."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace

import yaml

from robot_vision.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument(
        "config", nargs="?", help="YAML file; see docs/training.md and config/training/"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="override a setting, e.g. loop.epochs=10; may be repeated",
    )
    parser.add_argument("--output", help="folder of the run (default: runs/NAME)")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run")
    parser.add_argument("--settings", action="store_true", help="list every setting and stop")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved plan and stop")


def run(args: argparse.Namespace) -> int:
    """Trains, exports and prints the tables."""
    from robot_vision.training.config_file import describe, plain, read_config

    # Before torch is imported, which takes seconds.
    if args.settings:
        for key, default, text in describe():
            print(f"{key} = {default}\n    {text}")
        return 0
    if not args.config:
        raise ConfigError("Which configuration? Give a YAML file; config/training/ has examples")
    config = read_config(args.config, args.overrides)
    if args.output:
        config = replace(config, output=args.output)
    try:
        import lightning_fabric  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"Training needs {error.name}, which is not installed: pip install 'robot_vision[train]'"
        ) from error
    from robot_vision.training.run import train
    from robot_vision.training.setup import describe_plan, resolved

    if args.dry_run:
        print(yaml.safe_dump(plain(resolved(config)), sort_keys=False, allow_unicode=True))
        for line in describe_plan(config):
            print(line)
        return 0
    command = shlex.join(["robot-vision", *sys.argv[1:]])
    result = train(config, args.resume, command=command)
    if result is not None:
        print(result.bundle)
    return 0
