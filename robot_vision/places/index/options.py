"""How an index of descriptors is built and searched."""

from __future__ import annotations

from dataclasses import dataclass

from robot_vision.errors import ConfigError

# An exact query reads every number once: 40 MB, some 4 ms on one core of a robot.
EXACT_NUMBERS = 10_000_000


# Cells for fewer places hold too few to learn from, whatever the descriptor's length.
MIN_INVERTED = 5_000


@dataclass(frozen=True)
class IndexOptions:
    """How an index is built and searched.

    Attributes:
        threads: that search; one leaves the robot's other cores alone.
        build_threads: that build cells, 0 for all cores.
        exact_numbers: up to this many numbers (places times their length) every query is exact.
        recall: share of places whose nearest other place has to be found through the cells.
    """

    threads: int = 1
    build_threads: int = 0
    exact_numbers: int = EXACT_NUMBERS
    recall: float = 0.995

    def __post_init__(self) -> None:
        if self.threads < 1 or self.build_threads < 0:
            raise ConfigError(
                f"Index threads are {self.threads} and build_threads {self.build_threads}: use 1 or "
                "more to search, and 0 (all cores) or more to build"
            )
        if not 0.5 <= self.recall <= 1:
            raise ConfigError(f"Index recall is {self.recall}: use 0.5 to 1")
