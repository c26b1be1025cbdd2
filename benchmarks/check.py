"""`make bench-check BASE=COMMIT`: whether this tree is slower than a commit, both measured in turns.

The commit's files are put into build/benchmarks and run in the same environment, both trees with the
commit's demo bundle. Of each figure it gives the median ratio of the turns, this tree's speed over the
commit's, and an interval that holds the true median with 95 percent. Where all of it is below 1 less the
noise, this tree is slower, and the exit status is 1.
"""

from __future__ import annotations

# Before the imports below, which take seconds in which Ctrl-C may come.
if __name__ == "__main__":
    from benchmarks.interrupts import end_quietly

    end_quietly()

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import inputs, node, peers, replay
from benchmarks.peers import Peer, bench
from benchmarks.quiet import WATCH
from benchmarks.tables import table
from benchmarks.timing import positive
from robot_vision.demo.processes import free_domain
from robot_vision.errors import ConfigError

PARTS = ("process", "node", "start_up")
NODES = ("robot_vision/ros/perception/node.py", "robot_vision/ros/perception_node.py")
FLOOD_HZ = 400.0  # above what a node answers
EVALUATED = 96  # frames of the bag
LEVEL = 0.95
SHARE = "pipeline / engine"


@dataclass(frozen=True)
class Side:
    """One of the two trees.

    Attributes:
        name: `base` or `this`.
        root: its files.
        domain: ROS domain of its processes.
    """

    name: str
    root: Path
    domain: int

    @property
    def environment(self) -> dict[str, str]:
        """Returns the environment in which `robot_vision` is this tree's."""
        # A folder of PYTHONPATH comes before the editable installation, which a later finder serves.
        own = {"PYTHONPATH": str(self.root), "ROS_DOMAIN_ID": str(self.domain)}
        return {**os.environ, **own}

    def node_command(self, bundle: Path) -> list[str]:
        """Returns the command line of this tree's perception node."""
        for path in NODES:
            if (self.root / path).is_file():
                module = path.removesuffix(".py").replace("/", ".")
                return peers.perception(str(bundle), "raw", "float32", module=module)
        raise ConfigError(f"{self.root} has no perception node: none of {', '.join(NODES)}")


def checked_out(commit: str) -> Path:
    """Returns the folder with a commit's files.

    Raises:
        ConfigError: there is no such commit.
    """
    git = ["git", "-C", str(inputs.ROOT)]
    found = subprocess.run(
        [*git, "rev-parse", "--verify", "-q", f"{commit}^{{commit}}"],
        capture_output=True,
        text=True,
    )
    if found.returncode:
        raise ConfigError(f"BASE={commit} is no commit here")
    name = found.stdout.strip()
    folder = inputs.ROOT / "build" / "benchmarks" / f"base-{name[:12]}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as work:
            files = subprocess.run([*git, "archive", name], capture_output=True, check=True).stdout
            subprocess.run(["tar", "-x", "-C", work], input=files, check=True)
            Path(work).rename(folder)
            Path(work).mkdir()  # for TemporaryDirectory to remove
    return folder


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """Returns an interval that holds the median with `LEVEL`, from order statistics.

    Of fewer than six no interval does: then it is (0, inf).
    """
    count, ordered = len(ratios), sorted(ratios)
    outside, cut = 0.0, 0
    while cut < count // 2:
        outside += 2 * math.comb(count, cut) / 2**count
        if outside > 1 - LEVEL:
            break
        cut += 1
    return (ordered[cut - 1], ordered[-cut]) if cut else (0.0, math.inf)


def verdict(ratios: Sequence[float], noise: float) -> str:
    """Returns what ratios of speeds say: slower by more than `noise`, not so, or undecided."""
    low, high = interval(ratios)
    if high < 1 - noise:
        return "SLOWER"
    return "no slower" if low >= 1 - noise else "undecided"


def in_turns(
    sides: Sequence[Side], turns: int, measure: Callable[[Side], dict[str, float]]
) -> dict[str, list[tuple[float, float]]]:
    """Measures base and this in turns, there and back.

    Returns:
        For each figure a pair (base, this) a turn.
    """
    figures: dict[str, list[tuple[float, float]]] = {}
    for turn in range(turns):
        order = sides[:: -1 if turn % 2 else 1]

        def both(order: Sequence[Side] = order) -> dict[str, dict[str, float]]:
            return {side.name: measure(side) for side in order}

        found = WATCH.trial(both)
        for name in found["base"]:
            figures.setdefault(name, []).append((found["base"][name], found["this"][name]))
    return figures


def process(sides: Sequence[Side], turns: int, bundle: Path) -> Any:
    """Engine, pipeline and evaluation, each tree in a process of its own; ms a frame."""
    images = np.stack(inputs.frames()[0])
    code = (inputs.ROOT / "benchmarks" / "side.py").read_text()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        np.save(file := Path(folder) / "images.npy", images)
        bag = replay.jpeg_bag(Path(folder) / "bag", list(images), EVALUATED)
        command = ["-c", code, str(bundle), str(file), str(bag), "auto"]
        workers = {}
        for side in sides:
            worker = Peer(*command, cwd=side.root, env=side.environment)
            workers[side.name] = worker
            stack.callback(worker.close)

        def measure(side: Side) -> dict[str, float]:
            found = {}
            for what in ("engine", "pipeline", "evaluate"):
                taken = workers[side.name].ask(do=what)
                for kind, label in (("seconds", ""), ("cpu", ", processor")):
                    found[f"{what}{label}, ms a frame"] = 1e3 * taken[kind] / taken["frames"]
            found[SHARE] = found["pipeline, ms a frame"] / found["engine, ms a frame"]
            return found

        return in_turns(sides, turns, measure)


def running_node(sides: Sequence[Side], turns: int, bundle: Path) -> Any:
    """The node under more frames than it can answer, and at 30 Hz."""
    with ExitStack() as stack:
        benches = {
            side.name: stack.enter_context(
                bench(side.node_command(bundle), cwd=side.root, env=side.environment)
            )
            for side in sides
        }

        def measure(side: Side) -> dict[str, float]:
            flood = node.one_trial(benches[side.name], FLOOD_HZ, 2.0)
            calm = node.one_trial(benches[side.name], 30.0, 1.5)
            if not (flood["answered_hz"] and calm["age_at_reception"]):
                raise ConfigError(f"the node of {side.root} answers nothing")
            return {
                "node flooded, answered Hz": flood["answered_hz"],
                "node flooded, processor, ms a frame": flood["cpu_ms_a_frame"]["node"],
                "node at 30 Hz, age p50, ms": calm["age_at_reception"]["p50_ms"],
                "node at 30 Hz, processor, ms a frame": calm["cpu_ms_a_frame"]["node"],
            }

        return in_turns(sides, turns, measure)


def start_up(sides: Sequence[Side], turns: int, bundle: Path) -> Any:
    """From the start of the node's process to its first result at a subscriber."""

    def measure(side: Side) -> dict[str, float]:
        command = side.node_command(bundle)
        seconds = node.first_result_s(command, cwd=side.root, env=side.environment)
        return {"start to first result, s": seconds}

    return in_turns(sides, turns, measure)


def rows(figures: dict[str, list[tuple[float, float]]], noise: float) -> Iterator[list[str]]:
    """Yields a row of the table for each figure: name first, verdict last."""
    for name, pairs in figures.items():
        faster = name.endswith("Hz")
        ratios = [this / base if faster else base / this for base, this in pairs]
        low, high = interval(ratios)
        # A faster engine makes the share of all else larger: that is to be seen and is no loss.
        said = "" if name == SHARE else verdict(ratios, noise)
        base, this = (statistics.median(values) for values in zip(*pairs, strict=True))
        ratio = statistics.median(ratios)
        yield [name, f"{base:.4g}", f"{this:.4g}", f"{ratio:.3f}", f"{low:.3f} to {high:.3f}", said]


def two_domains() -> tuple[int, int]:
    """Returns ROS domains for both sides, on this machine alone."""
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    first = free_domain()
    os.environ["ROS_DOMAIN_ID"] = str(first)  # which the next one leaves out
    return first, free_domain()


def check(
    base: str,
    parts: Sequence[str],
    turns: int,
    noise: float,
    bundle: Path | None,
) -> int:
    """Measures and prints; returns the exit status."""
    root = checked_out(base)
    bundle = bundle or root / "models" / "demo"
    first, second = two_domains()
    sides = (Side("base", root, first), Side("this", inputs.ROOT, second))
    figures: dict[str, list[tuple[float, float]]] = {}
    for name, part in (("process", process), ("node", running_node), ("start_up", start_up)):
        if name in parts:
            print(f"{name} ...", file=sys.stderr, flush=True)
            figures |= part(sides, turns, bundle)
    found = list(rows(figures, noise))
    heading = ["figure", "base", "this", "this's speed / base's", "95 % interval", ""]
    print(table(heading, found))
    quiet = WATCH.found()
    print(
        f"Base {base}, {bundle}; {turns} turns of each; slower: the whole interval below "
        f"{1 - noise:.3f}. Of {quiet['trials']} turns {quiet['disturbed']} were disturbed"
        + (f" ({quiet['reasons'][0]})" if quiet["reasons"] else "")
        + f", after {WATCH.repeated} that were repeated."
    )
    slower = [row[0] for row in found if row[-1] == "SLOWER"]
    undecided = [row[0] for row in found if row[-1] == "undecided"]
    if undecided:
        print(f"undecided, more turns would say: {'; '.join(undecided)}")
    if slower:
        print(f"error: slower than {base}: {'; '.join(slower)}", file=sys.stderr)
    return 1 if slower else 0


def main() -> int:
    """Parses arguments, measures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.check", description=__doc__)
    parser.add_argument("base", metavar="COMMIT", help="to compare with")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART",
                        help=f"some of {', '.join(PARTS)}")  # fmt: skip
    parser.add_argument("--turns", type=int, default=12, help="of each (default: %(default)s)")
    parser.add_argument("--noise", type=positive, default=2.0, metavar="PERCENT",
                        help="slower by less is no regression (default: %(default)s)")  # fmt: skip
    parser.add_argument("--bundle", type=Path, metavar="DIR",
                        help="that both run (default: the demo bundle of COMMIT)")  # fmt: skip
    args = parser.parse_args()
    if args.turns < 1:
        parser.error(f"argument --turns: {args.turns} is not above 0")
    try:
        return check(args.base, args.only, args.turns, args.noise / 100, args.bundle)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        peers.end_all()


if __name__ == "__main__":
    sys.exit(main())
