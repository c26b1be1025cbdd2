"""What a checkpoint's path must be. Without torch, so that a mistake is reported before that is imported."""

from __future__ import annotations

from pathlib import Path

from robot_vision.errors import BundleError


def checkpoint_path(path: str | Path) -> Path:
    """Returns the path of a checkpoint that is there.

    Raises:
        BundleError: it is absent, or of another format.
    """
    path = Path(path).expanduser()
    if path.suffix != ".safetensors":
        raise BundleError(
            f"{path} is not read: checkpoints are .safetensors, because other formats can run code when "
            "they are read; train and save with robot_vision, or give a bundle's weights.safetensors"
        )
    if not path.is_file():
        raise BundleError(f"No checkpoint at {str(path)!r}")
    return path
