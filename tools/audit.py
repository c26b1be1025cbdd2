"""Asks the public lists of vulnerabilities about every version that constraints/ pins.

    python tools/audit.py            # installs pip-audit into an environment of its own, .venv/audit

Exits with 1 where a pinned version has a known vulnerability that constraints/audit-ignore.txt does not
explain, and with 0 and a line that says so where the lists cannot be reached.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IGNORED = ROOT / "constraints" / "audit-ignore.txt"
TIMEOUT_S = 300
KNOWN_BAD = "pyyaml==5.3"  # CVE-2020-1747, CVE-2020-14343


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv" / "audit")
    parser.add_argument("files", nargs="*", type=Path, help="default: all of constraints/")
    options = parser.parse_args()
    files = options.files or sorted((ROOT / "constraints").glob("*.txt"))
    files = [file for file in files if file != IGNORED]
    pins = pinned(files)
    python = _environment(options.venv)
    if python is None:
        return _skipped("pip-audit cannot be installed: no package index is reachable")
    # A mirror may answer for packages and know nothing of vulnerabilities: so it is asked for one first.
    if not _ask(python, [KNOWN_BAD]):
        return _skipped("no list of vulnerabilities can be reached from here")
    found = _ask(python, pins)
    if found is None:
        return _skipped("the lists of vulnerabilities cannot be reached from here")
    known = ignored(IGNORED)
    new = [row for row in found if row[2] not in known]
    for name, version, number, text in found:
        mark = known.get(number)
        print(f"{name} {version}: {number} {text}" + (f" (ignored: {mark})" if mark else ""))
    print(
        f"audit: {len(pins)} versions, {len(found)} known vulnerabilities, {len(new)} unexplained"
    )
    return 1 if new else 0


def pinned(files: list[Path]) -> list[str]:
    """Returns every `name==version` of the files, once."""
    lines = {line.split("#")[0].strip() for file in files for line in file.read_text().splitlines()}
    return sorted(line for line in lines if "==" in line)


def ignored(file: Path) -> dict[str, str]:
    """Returns the reason for each vulnerability's number of a file of `NUMBER reason` lines."""
    if not file.is_file():
        return {}
    rows = (line.split(maxsplit=1) for line in file.read_text().splitlines())
    return {row[0]: row[1] for row in rows if len(row) == 2 and not row[0].startswith("#")}


def _environment(folder: Path) -> Path | None:
    python = folder / "bin" / "python"
    if not (folder / "bin" / "pip-audit").exists():
        venv.create(folder, with_pip=True, clear=True)
        install = [python, "-m", "pip", "install", "-q", "--retries", "1", "pip-audit>=2.7"]
        if subprocess.run(install, capture_output=True, check=False).returncode:
            return None
    return python


def _ask(python: Path, pins: list[str]) -> list[tuple[str, str, str, str]] | None:
    """Returns name, version, number and text of each vulnerability; None if nobody answers."""
    rows: list[tuple[str, str, str, str]] = []
    for batch in _without_repeats(pins):
        with tempfile.TemporaryDirectory() as place:
            asked, answer = Path(place) / "pins.txt", Path(place) / "answer.json"
            asked.write_text("\n".join(batch) + "\n")
            command = [python, "-m", "pip_audit", "-r", asked, "--no-deps", "--disable-pip"]
            command += ["-f", "json", "-o", answer, "--progress-spinner", "off", "--timeout", "15"]
            try:
                subprocess.run(command, capture_output=True, check=False, timeout=TIMEOUT_S)
                data = json.loads(answer.read_text())
            except (OSError, ValueError, subprocess.TimeoutExpired):
                return None
        for package in data["dependencies"]:
            for vulnerability in package.get("vulns", []):
                text = " ".join(vulnerability.get("description", "").split())[:100]
                rows.append((package["name"], package["version"], vulnerability["id"], text))
    return rows


def _without_repeats(pins: list[str]) -> list[list[str]]:
    """Divides pins so that no list has two versions of a package, which pip-audit refuses."""
    batches: list[dict[str, str]] = []
    for pin in pins:
        name = pin.partition("==")[0]
        for batch in batches:
            if name not in batch:
                batch[name] = pin
                break
        else:
            batches.append({name: pin})
    return [list(batch.values()) for batch in batches]


def _skipped(why: str) -> int:
    print(f"audit: skipped: {why}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
