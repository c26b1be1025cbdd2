"""Runs one target in this process, guided by the coverage of the Python code that it reaches.

    python -m fuzz.guided TARGET [libFuzzer's arguments]

What runs inside native libraries (OpenCV, ONNX Runtime, SQLite, FAISS) is run, and its crashes are seen, but
its branches do not guide the search.
"""

from __future__ import annotations

import sys

import atheris

# What is read by Python code, ours and others', is instrumented as it is imported.
_INSTRUMENTED = ["robot_vision", "fuzz.targets", "rosbags", "yaml", "zipfile", "json"]


def main() -> None:
    """Runs until libFuzzer ends the process."""
    name, *arguments = sys.argv[1:]
    with atheris.instrument_imports(include=_INSTRUMENTED):
        from fuzz import targets

        target = targets.load(name)
        target.SEEDS()  # imports what is imported late
    atheris.Setup([f"fuzz {name}", *arguments], target.one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
