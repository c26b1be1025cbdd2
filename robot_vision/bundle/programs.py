"""The programs of a bundle: one network at several precisions, and what each was certified to cost.

`float32` is the bundle's own graph. Another program has a graph of its own (`model.int8.onnx`), or runs the
bundle's graph in another precision (`bfloat16`). `robot-vision optimise` writes them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from robot_vision.contract.head import plain
from robot_vision.errors import ConfigError, unknown
from robot_vision.settings.checks import require
from robot_vision.settings.mappings import check_mapping

FLOAT32 = "float32"
PRECISIONS = ("float32", "float16", "bfloat16")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


@dataclass(frozen=True)
class Certificate:
    """What a program costs against float32, on images by which nothing of it was chosen.

    Attributes:
        engine: that ran it: `onnx`, `openvino` or `torch`.
        engine_version: of the library.
        device: `cpu`, or a GPU's kind such as `cuda`.
        instructions: the widest set of the CPU, or the GPU's name.
        images: `count`, `sha256` of their hashes, `blocks`, `data`, `split`.
        versions: of what computed it.
        heads: name to what was bounded, with `passed` and, where that is false, `why`.
        passed: whether all heads did.
    """

    engine: str
    engine_version: str
    device: str
    instructions: str
    images: Mapping[str, Any]
    versions: Mapping[str, Any]
    heads: Mapping[str, Mapping[str, Any]]
    passed: bool

    def counts(self, engine: str, device: str, instructions: str) -> bool:
        """Returns whether it is for this engine, device (`cuda:1` counts as `cuda`) and instruction set."""
        here = engine, device.partition(":")[0], instructions
        return here == (self.engine, self.device, self.instructions)

    @classmethod
    def parse(cls, what: str, data: object, heads: Collection[str]) -> Certificate:
        """Reads one from plain data.

        Raises:
            ConfigError: a key, a type, or heads that do not fit the network's.
        """
        texts = ("engine", "engine_version", "device", "instructions")
        mappings = ("images", "versions", "heads")
        found = dict(check_mapping(what, data, (*texts, *mappings, "passed"), ()))
        for key in texts:
            value = found[key]
            require(isinstance(value, str) and bool(value), f"{what} {key}", value, "a text")
        for key in mappings:
            is_mapping = isinstance(found[key], Mapping)
            require(is_mapping, f"{what} {key}", found[key], "a mapping")
        for name, said in found["heads"].items():
            if name not in heads:
                raise ConfigError(unknown(f"head of {what}", name, tuple(heads)))
            passed = said.get("passed") if isinstance(said, Mapping) else None
            require(isinstance(passed, bool), f"{what} {name} passed", passed, "true or false")
        every = set(found["heads"]) == set(heads) and all(
            said["passed"] for said in found["heads"].values()
        )
        words = f"{str(every).lower()}, by what it says of the heads"
        require(found["passed"] is every, f"{what} passed", found["passed"], words)
        return cls(**found)


@dataclass(frozen=True)
class Program:
    """A way to run a bundle's network.

    Attributes:
        name: `float32`, a variant's (`int8`) or a mode's (`bfloat16`).
        graph: its file in the bundle; empty where it runs the bundle's own.
        precision: that the engine is asked for.
        heads: settings that were fitted for it, by head, instead of the bundle's.
        calibration: instead of the bundle's, where it has one.
        certificates: by engine, device and instruction set.
    """

    name: str
    graph: str = ""
    precision: str = FLOAT32
    heads: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)
    certificates: tuple[Certificate, ...] = ()

    def certificate(self, engine: str, device: str, instructions: str) -> Certificate | None:
        """Returns the certificate that counts there; None where there is none."""
        return next((c for c in self.certificates if c.counts(engine, device, instructions)), None)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data that `parse_programs` reads back."""
        data = plain(self)
        return {key: value for key, value in data.items() if value or key == "precision"}

    @classmethod
    def parse(cls, data: object, heads: Collection[str]) -> Program:
        """Reads one from plain data; see `parse_programs`."""
        optional = ("graph", "heads", "calibration", "certificates")
        found = dict(check_mapping("a program", data, ("name", "precision"), optional))
        name, precision = found["name"], found["precision"]
        ok = isinstance(name, str) and _NAME.fullmatch(name)
        require(bool(ok), "name of a program", name, "small letters, digits and '-', at most 40")
        what = f"program {name}"
        if precision not in PRECISIONS:
            raise ConfigError(unknown(f"precision of {what}", precision, PRECISIONS))
        graph, own = found.setdefault("graph", ""), f"model.{name}.onnx"
        require(graph in ("", own), f"graph of {what}", graph, f"{own}, or left out")
        as_it_is = not graph and precision == FLOAT32
        if (name == FLOAT32) != as_it_is:
            raise ConfigError(
                f"{what} runs {graph or 'the graph of the bundle'} in {precision}: {FLOAT32} is the name of "
                "the program that runs the graph of the bundle in float32, and of no other"
            )
        for key in ("heads", "calibration"):
            value = found.setdefault(key, {})
            require(isinstance(value, Mapping), f"{key} of {what}", value, "a mapping")
            if name == FLOAT32 and value:
                raise ConfigError(f"{what} has {key}: those of the bundle are its own")
        for head, values in found["heads"].items():
            if head not in heads:
                raise ConfigError(unknown(f"head of {what}", head, tuple(heads)))
            fits = isinstance(values, Mapping) and "kind" not in values
            require(fits, f"{head} of {what}", values, "a mapping of settings")
        certificates = found.get("certificates", [])
        require(isinstance(certificates, list), f"certificates of {what}", certificates, "a list")
        found["certificates"] = tuple(
            Certificate.parse(f"certificate {i} of {what}", one, heads)
            for i, one in enumerate(certificates, 1)
        )
        places = [(c.engine, c.device, c.instructions) for c in found["certificates"]]
        if twice := [place for place in places if places.count(place) > 1]:
            raise ConfigError(f"{what} has two certificates for {' on '.join(twice[0])}")
        return cls(**found)


def parse_programs(data: object, heads: Collection[str]) -> tuple[Program, ...]:
    """Reads the programs that bundle.yaml lists.

    Args:
        data: a list, or None.
        heads: names of the network's heads.

    Raises:
        ConfigError: a key, a type or a value that does not fit; the message names program and key.
    """
    if data is None:
        return ()
    require(isinstance(data, list), "programs", data, "a list")
    assert isinstance(data, list)
    programs = tuple(Program.parse(one, heads) for one in data)
    names = [program.name for program in programs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"programs has {twice[0]} twice")
    return programs
