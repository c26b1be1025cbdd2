"""One module a target.

Each has `seeds()` (inputs to begin with), `one_input(data)` (which raises only what is a bug), `MAX_LEN`
(bytes of an input), `ALLOWED_S` (seconds that an input may take), and `strategy()`, a hypothesis strategy of
well-formed inputs, where there is one.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType


def names() -> tuple[str, ...]:
    """Returns the targets' names."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def load(name: str) -> ModuleType:
    """Returns a target's module."""
    return importlib.import_module(f"fuzz.targets.{name}")
