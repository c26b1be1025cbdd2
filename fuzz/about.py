"""Writes the seeds of a target into a folder, and what there is to know of it to standard output, as JSON.

    python -m fuzz.about TARGET FOLDER

In a process of its own: Linux counts the memory of the process that starts another as that one's peak, and
some targets import torch.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from fuzz import targets


def main() -> None:
    """Loads the target."""
    name, folder = sys.argv[1:]
    target = targets.load(name)
    for number, data in enumerate(target.seeds()):
        (Path(folder) / f"seed-{number:03}").write_bytes(data)
    about = {
        "allowed_s": target.ALLOWED_S,
        "max_len": target.MAX_LEN,
        "properties": hasattr(target, "strategy"),
    }
    print(json.dumps(about))


if __name__ == "__main__":
    main()
