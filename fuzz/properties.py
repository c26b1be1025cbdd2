"""Runs one target on inputs that hypothesis makes of the target's `strategy()`.

    python -m fuzz.properties TARGET EXAMPLES SECONDS

Prints how many inputs were run; a failing one is made small and written to FUZZ_FOUND.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from fuzz import targets


def main() -> int:
    """Returns 0, or 1 where an input failed."""
    name, examples, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    target = targets.load(name)
    end = time.monotonic() + seconds
    count, failing = 0, b""

    def check(data: bytes) -> None:
        nonlocal count, failing
        count += 1
        try:
            target.one_input(data)
        except BaseException:
            failing = data  # the last one that hypothesis tries is the smallest
            raise

    options = settings(
        max_examples=1000,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    status, round_ = 0, 0
    try:
        while count < examples and time.monotonic() < end:
            # Rounds, each from its own seed: hypothesis keeps what it has tried within a round.
            seed(round_)(options(given(target.strategy())(check)))()
            round_ += 1
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        (Path(os.environ.get("FUZZ_FOUND", ".")) / f"{name}-property").write_bytes(failing)
        status = 1
    print(f"executions: {count}")
    return status


if __name__ == "__main__":
    sys.exit(main())
