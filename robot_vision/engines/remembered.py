"""What was found to be fastest for a bundle on a machine, remembered from start to start.

One small file for each bundle, machine and way of asking, in the bundle's folder of the cache. It may be
deleted at any time; what cannot be read, or was written for another machine, is as if it were not there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from robot_vision import __version__
from robot_vision.bundle.bundle import ModelBundle
from robot_vision.engines.base import EngineSettings
from robot_vision.engines.machine import installed_versions, instructions, onednn_limit, processor
from robot_vision.files.whole import write_whole

_SCHEMA = "robot_vision.choice/1"
_MAX_BYTES = 1 << 16
_LIBRARIES = ("onnxruntime", "onnxruntime-gpu", "openvino", "torch")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Way:
    """A program, in an engine, on a device."""

    program: str
    engine: str
    device: str

    @property
    def text(self) -> str:
        """For people."""
        on = "" if self.device == "cpu" else f" on {self.device}"
        return f"{self.program} with {self.engine}{on}"


@dataclass(frozen=True)
class Machine:
    """What a choice depends on, but for the bundle.

    Attributes:
        facts: processor, instruction set, cores that this process may use, and what was asked for: a choice
            says nothing of others.
        versions: of what computes: with another of these all is timed again.
    """

    facts: Mapping[str, Any]
    versions: Mapping[str, str]

    @classmethod
    def here(cls, engine: str, asked: EngineSettings) -> Machine:
        """Returns this machine, for an engine (or `auto`) and the settings that were asked for."""
        facts = {
            "processor": processor(),
            "instructions": instructions(),
            "onednn_limit": onednn_limit().lower(),
            "cores": len(os.sched_getaffinity(0)),
            "engine": engine,
            "device": asked.device,
            "threads": asked.threads,
            "streams": asked.streams or 1,  # 0 is one for what runs alone, and so it is timed
        }
        if asked.device not in ("auto", "cpu"):
            facts["device_name"] = instructions(asked.device)
        return cls(facts, {"robot_vision": __version__, **installed_versions(_LIBRARIES)})

    @property
    def file_name(self) -> str:
        """Differs where `facts` does."""
        text = json.dumps(self.facts, sort_keys=True)
        return f"choice-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        way: that was fastest.
        versions: with which it was timed.
        said: in a line, for people.
        milliseconds: of a run of each program that was timed, by `Way.text`.
        disturbed: how many timings in a row other processes disturbed; 0 where the last was quiet.
    """

    way: Way
    versions: Mapping[str, str]
    said: str
    milliseconds: Mapping[str, float]
    disturbed: int = 0


def choice_file(bundle: ModelBundle, machine: Machine) -> Path | None:
    """Returns where a choice is remembered; None where the account has no home."""
    try:
        return bundle.cache / machine.file_name
    except RuntimeError:
        return None


def recall(bundle: ModelBundle, machine: Machine) -> Choice | None:
    """Returns what was remembered; None where there is nothing whole of this bundle and machine."""
    file = choice_file(bundle, machine)
    try:
        if file is None or not file.is_file() or file.stat().st_size > _MAX_BYTES:
            return None
        data = json.loads(file.read_text(encoding="utf-8"))
        if data["schema"] != _SCHEMA or data["bundle"] != bundle.sha256:
            return None
        if data["facts"] != dict(machine.facts):
            return None
        way, versions, said = Way(**data["way"]), data["versions"], data["said"]
        taken = {str(name): float(ms) for name, ms in data["milliseconds"].items()}
        disturbed = data["disturbed"]
        texts = [way.program, way.engine, way.device, said, *versions, *versions.values()]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        _log.warning("%s is not used, and programs are timed again: %s", file, error)
        return None
    if type(disturbed) is not int or not all(isinstance(t, str) for t in texts):
        return None
    return Choice(way, versions, said, taken, disturbed)


def remember(bundle: ModelBundle, machine: Machine, choice: Choice) -> None:
    """Writes what was chosen; where that cannot be, the next start times again, and a line says so."""
    file = choice_file(bundle, machine)
    data = {
        "schema": _SCHEMA,
        "bundle": bundle.sha256,
        "facts": dict(machine.facts),
        **asdict(choice),
    }
    try:
        if file is None:
            raise OSError("the account has no home")
        write_whole(file, json.dumps(data, indent=1) + "\n")
    except OSError as error:
        _log.warning("the choice cannot be kept, so each start times the programs: %s", error)
