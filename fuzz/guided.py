"""Runs one target in this process, guided by the coverage of the Python code that it reaches.

    python -m fuzz.guided TARGET [libFuzzer's arguments]

What runs inside native libraries (OpenCV, ONNX Runtime, SQLite, FAISS) is run, and its crashes are seen, but
its branches do not guide the search.
"""

from __future__ import annotations

import sys
import time

import atheris

# What is read by Python code, ours and others', is instrumented as it is imported.
_INSTRUMENTED = ["robot_vision", "fuzz.targets", "rosbags", "yaml", "zipfile", "json"]


def main() -> None:
    """Runs until libFuzzer ends the process."""
    name, *arguments = sys.argv[1:]
    with atheris.instrument_imports(include=_INSTRUMENTED):
        from fuzz import targets

        target = targets.load(name)
        target.seeds()  # imports what is imported late
    one_input, allowed_s = target.one_input, target.ALLOWED_S

    def timed(data: bytes) -> None:
        # Of this process: libFuzzer's own limit is on the wall's clock, which runs on where others compute.
        start = time.process_time()
        one_input(data)
        took = time.process_time() - start
        if took > allowed_s:
            raise TimeoutError(
                f"the input took {took:.1f} s of processor time, {allowed_s:g} allowed"
            )

    atheris.Setup([f"fuzz {name}", *arguments], timed)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
