"""Which heads there are, by name; a head's package is imported when it is asked for."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
from collections.abc import Iterable
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import find_spec
from typing import Any

from robot_vision.contract.head import Head
from robot_vision.errors import ConfigError, unknown

GROUP = "robot_vision.heads"  # entry points of other packages: KIND = "module:HEAD"
_METADATA = (".dist-info", "egg-info")
_log = logging.getLogger(__name__)
# The order of outputs, topics and tables.
BUILT_IN = {
    kind: f"robot_vision.heads.{kind}.head:HEAD"
    for kind in (
        "classifier",
        "pose",
        "place",
        "dronet",
        "segmentation",
        "depth",
        "cells",
        "coordinates",
    )
}


def names() -> tuple[str, ...]:
    """Returns the kinds of heads, built-in ones in their order and then those of other packages.

    Only the packages' metadata are read.
    """
    return (*BUILT_IN, *sorted(set(_installed()) - set(BUILT_IN)))


def head(kind: str, what: str = "head") -> Head[Any, Any]:
    """Returns a head, named as its kind.

    A built-in head comes before one of the same name from another package; `_installed` says so.

    Args:
        kind: one of `names()`.
        what: what an unknown one is called in the refusal.

    Raises:
        ConfigError: there is none, two packages bring one of that name, or its package cannot be imported.
    """
    if kind in BUILT_IN:
        return _load(kind, BUILT_IN[kind], "robot_vision")
    found = _installed().get(kind, ())
    if not found:
        raise ConfigError(
            f"{unknown(what, kind, names())}, or pip install the package that brings it"
        )
    if len(found) > 1:
        packages = " and ".join(sorted(package for _, package in found))
        raise ConfigError(f"Head {kind!r} is brought by {packages}: uninstall all but one")
    return _load(kind, *found[0])


def installed() -> list[Head[Any, Any]]:
    """Returns all heads that can be imported; a broken one is refused when it is asked for by name."""
    found = []
    for kind in names():
        with contextlib.suppress(ConfigError):
            found.append(head(kind))
    return found


def options() -> dict[str, type[Any]]:
    """Returns kind to `Head.Options` of all heads that can be imported, built-in ones without their heads.

    Of these only the module `options` is imported, which has the class as `OPTIONS`: a node declares the
    options of all heads, and its model has some of them.
    """
    found: dict[str, type[Any]] = {}
    for kind in names():
        module = BUILT_IN.get(kind, "").partition(":")[0]
        with contextlib.suppress(ConfigError):
            if not module.startswith("robot_vision."):
                found[kind] = head(kind).Options
            elif find_spec(name := module.removesuffix("head") + "options"):
                found[kind] = importlib.import_module(name).OPTIONS
    return found


def in_order(kinds: Iterable[tuple[str, str]]) -> list[str]:
    """Returns the names of (name, kind) pairs in the order of outputs, topics and tables."""
    order = list(BUILT_IN)
    pairs = list(kinds)

    def rank(pair: tuple[str, str]) -> tuple[int, str]:
        kind = pair[1]
        return (order.index(kind), "") if kind in BUILT_IN else (len(order), kind)

    return [name for name, _ in sorted(pairs, key=rank)]


@cache
def _installed() -> dict[str, tuple[tuple[str, str], ...]]:
    """Returns kind to (module:HEAD, package), of all packages that bring it."""
    if not _any_installed():
        return {}
    from importlib import metadata

    found: dict[str, set[tuple[str, str]]] = {}
    for entry in metadata.entry_points(group=GROUP):
        package = entry.dist.name if entry.dist else "a package"
        found.setdefault(entry.name, set()).add((entry.value, package))
    for kind in found.keys() & BUILT_IN:
        packages = " and ".join(sorted(package for _, package in found[kind]))
        _log.warning(
            "The %s head of %s is not used: one of robot_vision has this name", kind, packages
        )
    return {kind: tuple(sorted(entries)) for kind, entries in found.items()}


def _any_installed() -> bool:
    """Returns whether `importlib.metadata` has to be asked; importing it takes as long as all heads do."""
    group = GROUP.encode()
    for folder in dict.fromkeys(sys.path):
        try:
            with os.scandir(folder or ".") as entries:
                packages = [e.path for e in entries if e.name.lower().endswith(_METADATA)]
        except FileNotFoundError:
            continue
        except OSError:  # an archive
            return True
        for package in packages:
            try:
                with open(os.path.join(package, "entry_points.txt"), "rb") as file:
                    if group in file.read():
                        return True
            except OSError:  # most have no entry points
                continue
    return any(hasattr(f, "find_distributions") for f in sys.meta_path if f is not PathFinder)


@cache
def _load(kind: str, value: str, package: str) -> Head[Any, Any]:
    module, _, attribute = value.partition(":")
    try:
        loaded = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a package of others may fail in any way
        raise ConfigError(
            f"Head {kind!r} of {package} cannot be imported ({value}): {type(error).__name__}: {error}"
        ) from error
    if not isinstance(loaded, Head) or loaded.kind != kind:
        raise ConfigError(f"Head {kind!r} of {package}: {value} is no Head of that kind")
    return loaded
