"""`robot-vision train CONFIG`: from labelled images or poses to a model bundle."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from dataclasses import replace

import yaml

from robot_vision.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument(
        "config",
        nargs="?",
        help="YAML file of the training run; see docs/training.md and config/training/",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="override a setting of the file, such as loop.epochs=10; repeat for more",
    )
    parser.add_argument("--output", help="folder for the run (default: runs/NAME)")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run")
    parser.add_argument(
        "--settings", action="store_true", help="list every setting with its default and exit"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the complete plan and exit")


def run(args: argparse.Namespace) -> int:
    """Trains, exports and prints the tables."""
    # What needs no torch, whose import takes seconds, comes first.
    from robot_vision.training.config import resolved
    from robot_vision.training.config_file import describe, plain, read_config
    from robot_vision.training.folder import check_folder, folder_of, locked

    if args.settings:
        for key, default, text in describe():
            print(f"{key} = {default}\n    {text}")
        return 0
    if not args.config:
        raise ConfigError("Which configuration? Give a YAML file; config/training/ has examples")
    config = read_config(args.config, args.overrides)
    if args.output:
        config = replace(config, output=args.output)
    if not args.dry_run and not int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0))):
        args.folder = folder_of(resolved(config))
        if args.folder.is_dir():
            with locked(args.folder):
                check_folder(args.folder, resolved(config), args.resume)
    try:
        import torch  # noqa: F401

        from robot_vision.training.setup import describe_plan
    except ImportError as error:
        raise _not_installed(error) from error
    if args.dry_run:
        print(yaml.safe_dump(plain(resolved(config)), sort_keys=False, allow_unicode=True))
        for line in describe_plan(config):
            print(line)
        return 0
    try:
        from robot_vision.training.run import train
    except ImportError as error:
        raise _not_installed(error) from error
    command = shlex.join(["robot-vision", *sys.argv[1:]])
    result = train(config, args.resume, command=command)
    if result is not None:
        print(result.bundle)
    return 0


def interrupted(args: argparse.Namespace) -> str:
    """Returns what is left to do after Ctrl-C."""
    from robot_vision.training.folder import CONFIG

    begun = hasattr(args, "folder") and (args.folder / CONFIG).is_file()
    return f"{args.folder} continues with --resume" if begun else "nothing was started"


def _not_installed(error: ImportError) -> ConfigError:
    return ConfigError(
        f"Training needs {error.name}, which is not installed: pip install 'robot_vision[train]'"
    )
