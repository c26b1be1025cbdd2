"""Fuzzes every target, one process at a time, and writes what was run to a JSON file.

    python -m fuzz                           # a minute for each target
    python -m fuzz --seconds 600 pose_file   # longer, one target
    python -m fuzz --render                  # docs/reliability.md's table from the JSON

Every run is added to the JSON file. Inputs that failed are kept in out/fuzz/found: fix what they show, and
move them to test/fuzz_corpus/TARGET, where the test suite replays them.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fuzz import scratch, table, targets

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "fuzzing.json"
WORK = ROOT / "out" / "fuzz"
KEPT = ROOT / "test" / "fuzz_corpus"
MEMORY_MB = 2048
HANG_S = 120  # by the clock on the wall: on a busy machine much of it is others' time


def main() -> int:
    """Returns 0 if nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(targets.names()))
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target")
    parser.add_argument("--runs", type=int, default=-1, help="at most, for each target")
    parser.add_argument("--guided-only", action="store_true", help="leave out hypothesis")
    parser.add_argument("--json", type=Path, default=RESULTS, help="what was run is added to it")
    parser.add_argument("--render", action="store_true", help="only write the table")
    options = parser.parse_args()
    unknown = set(options.targets) - set(targets.names())
    if unknown:
        parser.error(f"no target {', '.join(sorted(unknown))}: use {', '.join(targets.names())}")
    if options.render:
        table.write(json.loads(options.json.read_text()), ROOT / "docs" / "reliability.md")
        return 0
    if importlib.util.find_spec("atheris") is None:
        print("fuzz: atheris is not installed: pip install 'robot_vision[fuzz]', or make fuzz")
        return 2
    found = 0
    for name in options.targets or targets.names():
        about = _about(name)
        rows = [_guided(name, about["max_len"], options.seconds, options.runs)]
        if about["properties"] and not options.guided_only:
            rows.append(_properties(name, options.seconds / 5, options.runs))
        for row in rows:
            row.update(allowed_s=about["allowed_s"], allowed_mb=MEMORY_MB)
            found += row["failed"]
            _add(options.json, row)
            print(
                f"{name:20} {row['kind']:9} {row['executions']:>10,} executions in {row['seconds']:5.0f} s"
                f"  {row['peak_mb']:>5} MB  {'FAILED: ' + row['failure'] if row['failed'] else 'ok'}",
                flush=True,
            )
    return 1 if found else 0


def _about(name: str) -> dict[str, Any]:
    """Writes the target's seeds, and returns what `fuzz.about` says of it."""
    corpus = WORK / "corpus" / name
    for folder in (corpus, WORK / "found"):
        folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "fuzz.about", name, str(corpus)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    about: dict[str, Any] = json.loads(done.stdout)
    return about


def _guided(name: str, max_len: int, seconds: float, runs: int) -> dict[str, Any]:
    corpus, found = WORK / "corpus" / name, WORK / "found"
    before = {p.name for p in found.iterdir()}
    command = [sys.executable, "-m", "fuzz.guided", name, str(corpus)]
    if (KEPT / name).is_dir():
        command.append(str(KEPT / name))
    command += [
        f"-runs={runs}",
        f"-max_total_time={seconds:.0f}",
        f"-timeout={HANG_S}",
        f"-rss_limit_mb={MEMORY_MB}",
        f"-max_len={max_len}",
        f"-artifact_prefix={found / name}-",
        "-print_final_stats=1",
    ]
    code, output, took, parts = _run(command, seconds)
    number = r"^stat::{}:\s+(\d+)$"
    count = re.search(number.format("number_of_executed_units"), output, re.MULTILINE)
    peak = re.search(number.format("peak_rss_mb"), output, re.MULTILINE)
    new = sorted({p.name for p in found.iterdir()} - before)
    return _row(name, "guided", count, peak, took, code, output, new, parts)


def _properties(name: str, seconds: float, runs: int) -> dict[str, Any]:
    found = WORK / "found"
    before = {p.name for p in found.iterdir()}
    most = str(runs if runs > 0 else 1 << 40)
    command = [sys.executable, "-m", "fuzz.properties", name, most, str(seconds)]
    code, output, took, parts = _run(command, seconds)
    count = re.search(r"^executions: (\d+)$", output, re.MULTILINE)
    new = sorted({p.name for p in found.iterdir()} - before)
    return _row(name, "property", count, None, took, code, output, new, parts)


def _run(command: list[str], seconds: float) -> tuple[int, str, float, int]:
    """Returns the exit code, the end of the output, the seconds that it took, and the parts of its inputs."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory(dir=_memory()) as folder, tempfile.TemporaryFile() as log:
        environment = {
            **os.environ,
            "FUZZ_SCRATCH": folder,
            "FUZZ_FOUND": str(WORK / "found"),
            "OMP_NUM_THREADS": "1",
            "OPENCV_LOG_LEVEL": "SILENT",
        }
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            code = process.wait(timeout=seconds + 300)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        log.seek(0, os.SEEK_END)
        log.seek(max(0, log.tell() - (1 << 20)))
        output = log.read().decode("utf-8", "replace")
        counted = Path(folder) / scratch.PARTS
        parts = int(counted.read_text()) if counted.is_file() else 0
    return code, output, time.monotonic() - start, parts


def _memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _row(
    name: str,
    kind: str,
    count: re.Match[str] | None,
    peak: re.Match[str] | None,
    took: float,
    code: int,
    output: str,
    new: list[str],
    parts: int,
) -> dict[str, Any]:
    failed = code != 0
    if failed:
        print(output[-3000:], file=sys.stderr)
    return {
        "target": name,
        "kind": kind,
        "executions": int(count.group(1)) if count else 0,
        "seconds": round(took, 1),
        "peak_mb": int(peak.group(1)) if peak else 0,
        "failed": failed,
        "failure": ", ".join(new) or (f"exit {code}" if failed else ""),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": _commit(),
        "python": platform.python_version(),
        "atheris": version("atheris"),
        "hypothesis": version("hypothesis"),
        **({"parts": parts} if parts else {}),
    }


def _commit() -> str:
    git = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    run = subprocess.run(git, capture_output=True, text=True, check=False)
    return run.stdout.strip()


def _add(path: Path, row: dict[str, Any]) -> None:
    rows = json.loads(path.read_text()) if path.is_file() else []
    text = ",\n".join(json.dumps(r) for r in [*rows, row])
    path.write_text(f"[\n{text}\n]\n")


if __name__ == "__main__":
    sys.exit(main())
