"""What a network is: the settings from which torch builds it and by which a bundle is checked.

A `NetworkSpec` is plain data. It is written into `bundle.yaml` and into the header of
`weights.safetensors`, and reading it back checks every key, type and range.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from robot_vision.contract import registry
from robot_vision.contract.epistemic import EpistemicSpec
from robot_vision.contract.head import Head, Output, plain
from robot_vision.errors import ConfigError
from robot_vision.images.input import InputSpec
from robot_vision.settings.mappings import check_mapping, from_mapping

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_TAKEN = ("stamp_ns", "source", "topic", "frame_id", "error")  # keys of every JSON line


@dataclass(frozen=True)
class NetworkSpec:
    """A backbone, its input and its heads.

    Attributes:
        heads: name to settings, in the order of outputs, topics and tables; given in any order, and those
            that are None are left out. Not to be changed.
        epistemic: how often heads answer; None where each answers once.
    """

    backbone: str = "resnet18"
    input: InputSpec = field(default_factory=InputSpec)
    heads: Mapping[str, Any] = field(default_factory=dict, hash=False)
    epistemic: EpistemicSpec | None = None

    def __post_init__(self) -> None:
        given = {name: spec for name, spec in self.heads.items() if spec is not None}
        if not given:
            raise ConfigError(
                f"heads is empty: it must name at least one of {', '.join(registry.names())}"
            )
        order = registry.in_order((name, spec.KIND) for name, spec in given.items())
        object.__setattr__(self, "heads", {name: given[name] for name in order})
        self._check_names()
        self._check_epistemic()

    def _check_names(self) -> None:
        for name, spec in self.heads.items():
            if name != spec.KIND and (not _NAME.fullmatch(name) or name in registry.names()):
                raise ConfigError(
                    f"Name {name!r} of a {spec.KIND} head: use small letters, digits and _, and not the "
                    "name of another kind of head"
                )
        keys = [*_TAKEN, *(head.json_key for head, _ in self.bound)]
        outputs = [o for head, spec in self.bound for o in head.outputs(spec, self.epistemic)]
        for names in (keys, outputs):
            name, count = Counter(names).most_common(1)[0]
            if count > 1:
                raise ConfigError(f"{name!r} would be said by two heads: rename one")

    def _check_epistemic(self) -> None:
        if not self.epistemic:
            return
        sampled = [(head.name, spec) for head, spec in self.bound if head.sampled]
        if not sampled:
            can = [kind for kind in registry.BUILT_IN if registry.head(kind).sampled]
            raise ConfigError(
                f"epistemic is of heads that can answer several times, such as {' and '.join(can)}, and the "
                "network has none: leave it out"
            )
        for name, spec in sampled:
            if self.epistemic.passes and not spec.dropout:
                raise ConfigError(
                    f"The {name} head has dropout 0, so all Monte Carlo passes would be the same: "
                    f"train it with dropout (network.{name}.dropout, for instance 0.2)"
                )

    @functools.cached_property
    def bound(self) -> tuple[tuple[Head[Any, Any], Any], ...]:
        """Each head under its name, with its settings."""
        return tuple(
            (registry.head(spec.KIND).named(name), spec) for name, spec in self.heads.items()
        )

    @functools.cached_property
    def outputs(self) -> dict[str, Output]:
        """The graph's outputs by their names."""
        return {
            name: output
            for head, spec in self.bound
            for name, output in head.outputs(spec, self.epistemic).items()
        }

    def doubts(self, answers: Mapping[str, Any]) -> dict[str, float]:
        """Returns what a network that answers several times says of its own answers, as named numbers."""
        found: dict[str, float] = {}
        for head, _ in self.bound:
            if (answer := answers.get(head.name)) is not None:
                found |= head.doubts(answer)
        return found

    def with_heads(self, **changes: Any) -> NetworkSpec:
        """Returns a copy with these heads added or replaced; None takes one away."""
        return dataclasses.replace(self, heads={**self.heads, **changes})

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data (lists, dicts, numbers, strings) that `from_dict` reads back."""
        heads = {head.name: {**kind_of(head), **plain(spec)} for head, spec in self.bound}
        data: dict[str, Any] = {"backbone": self.backbone, "input": plain(self.input)}
        if self.input.channels == 3:
            del data["input"]["channels"]  # bundles say it since there are others
        data["heads"] = heads
        if self.epistemic:
            data["epistemic"] = plain(self.epistemic)
        return data

    @classmethod
    def from_dict(cls, data: object) -> NetworkSpec:
        """Reads what `to_dict` wrote.

        Raises:
            ConfigError: an unknown or missing key, a wrong type or a value out of range.
        """
        optional = ("input", "epistemic")
        fields = check_mapping("network", data, required=("backbone", "heads"), optional=optional)
        if not isinstance(fields["backbone"], str):
            raise ConfigError(f"backbone is {fields['backbone']!r}: it must be a network's name")
        heads = {}
        for head, settings in bound_settings(fields["heads"]):
            heads[head.name] = from_mapping(head.Spec, head.name, settings)
        return cls(
            backbone=fields["backbone"],
            input=from_mapping(InputSpec, "input", fields.get("input") or {}),
            heads=heads,
            epistemic=from_mapping(EpistemicSpec, "epistemic", fields["epistemic"])
            if fields.get("epistemic")
            else None,
        )


def kind_of(head: Head[Any, Any]) -> dict[str, str]:
    """Returns the setting `kind` of a head whose name does not say it."""
    return {} if head.name == head.kind else {"kind": head.kind}


def bound_settings(heads: object) -> list[tuple[Head[Any, Any], Any]]:
    """Returns each head of a mapping `heads:` under its name, and its settings without `kind`.

    Raises:
        ConfigError: `heads` is no mapping, or a head is not there.
    """
    if not isinstance(heads, Mapping):
        raise ConfigError(f"heads is {type(heads).__name__}: it must be a mapping of settings")
    found = []
    for name, settings in heads.items():
        if isinstance(settings, Mapping) and "kind" in settings:
            kind = settings["kind"]
            settings = {key: value for key, value in settings.items() if key != "kind"}
            head = registry.head(str(kind), f"kind of head {name!r}")
        else:
            head = registry.head(str(name), "key of heads")
        found.append((head.named(str(name)), settings))
    return found
