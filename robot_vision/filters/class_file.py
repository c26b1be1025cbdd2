"""What is known of the classes beforehand, as a YAML file: which exist, how they follow each other.

prior: {kitchen: 2, corridor: 1}            # any scale; classes that are not named do not exist here
training_prior: {kitchen: 300, corridor: 900, office: 300}   # images a class, of all classes
rates: {kitchen: {corridor: 0.1}, corridor: {kitchen: 0.2}}  # changes a second; none is 0
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from robot_vision.errors import ConfigError, unknown
from robot_vision.files.plain_yaml import YamlError, load_yaml
from robot_vision.files.whole import write_whole

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


def fitted_rates(
    labels: Sequence[str],
    recordings: Iterable[tuple[NDArray[np.int64], Sequence[str | None]]],
    pseudo_changes: float = 0.5,
) -> Array:
    """Returns changes a second (K, K) as they were seen: their number over the time that each class lasted.

    As if each class had been left `pseudo_changes` times more often, for any other class alike: what was not
    seen is rare, and not impossible.

    Args:
        labels: of the K classes.
        recordings: stamps (N,) and labels (N,) of consecutive frames of each; None and labels that are not
            among the classes part the frames before from those after.
        pseudo_changes: above 0.

    Raises:
        ConfigError: not one change was seen.
    """
    index = {label: i for i, label in enumerate(labels)}
    count, seconds = np.zeros((len(labels), len(labels))), np.zeros(len(labels))
    for stamps_ns, names in recordings:
        states = [index.get(name, -1) if name is not None else -1 for name in names]
        for i, (a, b) in enumerate(itertools.pairwise(states)):
            if a < 0 or b < 0:
                continue
            seconds[a] += float(stamps_ns[i + 1] - stamps_ns[i]) * 1e-9
            count[a, b] += a != b
    if count.sum() == 0:
        raise ConfigError(
            "no change of the class was seen: rates need recordings with several classes"
        )
    mean_s = seconds.sum() / count.sum()
    others = max(len(labels) - 1, 1)
    rates = (count + pseudo_changes / others) / (seconds + pseudo_changes * mean_s)[:, None]
    np.fill_diagonal(rates, 0.0)
    return np.asarray(rates)


def write_rates(path: str | Path, labels: Sequence[str], rates: NDArray[np.float64]) -> None:
    """Writes a file with rates alone.

    Raises:
        ConfigError: it cannot be written.
    """
    rows = {
        a: {b: float(f"{rates[i, j]:.4g}") for j, b in enumerate(labels) if j != i}
        for i, a in enumerate(labels)
    }
    text = yaml.safe_dump({"rates": rows}, sort_keys=False, allow_unicode=True)
    try:
        write_whole(Path(path).expanduser(), text)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error}") from error


def read_class_file(path: str | Path, labels: Sequence[str]) -> ClassKnowledge:
    """Reads the file.

    Raises:
        ConfigError: it cannot be read, or names what is not there, or a value is no number of at least 0.
    """
    file = Path(path).expanduser()
    try:
        data = load_yaml(file.read_bytes())
    except (OSError, YamlError) as error:
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
