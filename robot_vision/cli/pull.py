"""`robot-vision pull USER/NAME`: a model bundle from the Hugging Face hub, verified."""

from __future__ import annotations

import argparse
import os
import re
import shutil
from pathlib import Path

from robot_vision.bundle.bundle import MANIFEST, ModelBundle, check_target
from robot_vision.errors import BundleError, ConfigError, SourceError
from robot_vision.files.whole import draft_folder

# What a bundle may have; anything else of the repository stays there.
_FILES = (MANIFEST, "README.md", "*.onnx", "*.safetensors", "*.txt", "*.npz", "*.npy", "*.json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's arguments."""
    parser.add_argument("repository", help="USER/NAME of a repository whose top folder is a bundle")
    parser.add_argument(
        "--revision", default="main", help="branch, tag or commit (default: %(default)s)"
    )
    parser.add_argument("--output", metavar="DIR", help="directory to write (default: models/NAME)")
    parser.add_argument("--force", action="store_true", help="replace the directory if it exists")


def run(args: argparse.Namespace) -> int:
    """Downloads, verifies, and only then puts the bundle where it was asked for."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", args.repository):
        raise ConfigError(f"{args.repository!r} is no repository: give USER/NAME")
    name = args.repository.partition("/")[2]
    target = Path(args.output or Path("models") / name).expanduser()
    check_target(target, args.force)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise ConfigError("pull needs huggingface_hub: pip install 'robot_vision[hub]'") from error
    target.parent.mkdir(parents=True, exist_ok=True)
    with draft_folder(target) as part:
        try:
            huggingface_hub.snapshot_download(
                args.repository,
                revision=args.revision,
                local_dir=part,
                allow_patterns=list(_FILES),
            )
        except (HfHubHTTPError, OSError, ValueError) as error:
            said = " ".join(str(error).split()) or type(error).__name__  # the remedy comes last
            raise SourceError(f"{args.repository} ({args.revision}): {said}") from error
        shutil.rmtree(part / ".cache", ignore_errors=True)  # the hub's own records
        if not (part / MANIFEST).is_file():
            raise BundleError(
                f"{args.repository} has no {MANIFEST}: it is no bundle of robot_vision"
            )
        bundle = ModelBundle.load(part)
    heads = ", ".join(bundle.spec.heads)
    print(f"{target}: {bundle.name}, {bundle.spec.backbone}, {heads} (sha256 {bundle.sha256[:12]})")
    return 0
