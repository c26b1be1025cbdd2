"""What is known of the classes beforehand, as a YAML file: which exist, how they follow each other.

prior: {kitchen: 2, corridor: 1}            # any scale; classes that are not named do not exist here
training_prior: {kitchen: 300, corridor: 900, office: 300}   # images a class, of all classes
rates: {kitchen: {corridor: 0.1}, corridor: {kitchen: 0.2}}  # changes a second; none is 0
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from robot_vision.errors import ConfigError, unknown

Array = NDArray[np.float64]
_KEYS = ("prior", "training_prior", "rates")


@dataclass(frozen=True, eq=False)
class ClassKnowledge:
    """The parts of the file, in the order of the labels; None where the file says nothing.

    Attributes:
        prior: (K,).
        training_prior: (K,).
        rates: (K, K), from row to column.
    """

    prior: Array | None = None
    training_prior: Array | None = None
    rates: Array | None = None


def read_class_file(path: str | Path, labels: Sequence[str]) -> ClassKnowledge:
    """Reads the file.

    Raises:
        ConfigError: it cannot be read, or names what is not there, or a value is no number of at least 0.
    """
    file = Path(path).expanduser()
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        text = " ".join(str(error).split())
        raise ConfigError(f"class_file {file} cannot be read: {text}") from error
    data = _mapping(data, str(file))
    for key in data:
        if key not in _KEYS:
            raise ConfigError(f"{file}: {unknown('key', key, _KEYS)}")
    rates = None
    if data.get("rates") is not None:
        rows = _mapping(data["rates"], f"{file}: rates")
        _known(rows, labels, f"{file}: rates")
        rates = np.array(
            [_numbers(rows.get(name) or {}, labels, f"{file}: rates of {name}") for name in labels]
        )
    vectors = {
        key: _numbers(data[key], labels, f"{file}: {key}")
        for key in ("prior", "training_prior")
        if data.get(key) is not None
    }
    return ClassKnowledge(vectors.get("prior"), vectors.get("training_prior"), rates)


def _mapping(data: Any, where: str) -> Mapping[Any, Any]:
    if not isinstance(data, dict):
        raise ConfigError(f"{where} is {data!r}: write it as names and values, such as kitchen: 1")
    return data


def _known(data: Mapping[Any, Any], labels: Sequence[str], where: str) -> None:
    for name in data:
        if name not in labels:
            raise ConfigError(f"{where}: {unknown('class', name, labels)}")


def _numbers(data: Any, labels: Sequence[str], where: str) -> Array:
    values = _mapping(data, where)
    _known(values, labels, where)
    for name, value in values.items():
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not 0 <= value < math.inf:
            raise ConfigError(f"{where}: {name} is {value!r}: it must be a number of at least 0")
    return np.array([float(values.get(name, 0.0)) for name in labels])
