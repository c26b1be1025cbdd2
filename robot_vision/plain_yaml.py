"""YAML from files that somebody else may have written: plain values only, and never more than the file shows.

`yaml.safe_load` makes no objects, but three lines of aliases of aliases ("billion laughs") still stand for
more values than fit into memory, the first time that they are printed, compared or merged.
"""

from __future__ import annotations

from typing import Any

import yaml

MAX_BYTES = 1 << 20
MAX_CHARACTERS = 4 << 20  # of all values, once aliases are written out; a node counts as one more
MAX_DEPTH = 64

# The loader in C reads a file at the limit in a second rather than in half a minute.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlError(ValueError):
    """Text that is not YAML, holds what is not plain, or stands for too much.

    Attributes:
        line: where, counted from 1; None where that is not known.
    """

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


def load_yaml(text: str | bytes) -> Any:
    """Returns dicts, lists, text, numbers, dates and None.

    Raises:
        YamlError: not YAML, a tag that makes objects, too long, too deep, or aliases that stand for too much.
    """
    return construct(compose(text))


def compose(text: str | bytes) -> Any:
    """Returns the checked root node, which knows its lines; None for an empty text. See `load_yaml`."""
    if len(text) > MAX_BYTES:
        raise YamlError(f"it has {len(text)} characters: at most {MAX_BYTES} are read")
    try:
        root = yaml.compose(text, _Loader)
    except (yaml.YAMLError, UnicodeError, RecursionError, ValueError) as error:
        raise _refused(error) from error
    if root is not None:
        _weigh(root, {}, 0)
    return root


def construct(node: Any) -> Any:
    """Returns the values of a node of `compose`; see `load_yaml`."""
    if node is None:
        return None
    try:
        # Of the loader in Python: it needs no text to construct.
        return yaml.SafeLoader("").construct_document(node)
    except (yaml.YAMLError, RecursionError, ValueError, TypeError, OverflowError) as error:
        raise _refused(error) from error


def _weigh(node: Any, known: dict[int, int], depth: int) -> int:
    """Returns how many characters a node stands for; a node that is being weighed has weight -1."""
    weight = known.get(id(node))
    line = node.start_mark.line + 1
    if weight == -1:
        raise YamlError("an alias stands for what it is part of", line)
    if weight is None:
        if depth > MAX_DEPTH:
            raise YamlError(f"it is nested more than {MAX_DEPTH} deep", line)
        known[id(node)] = -1
        if isinstance(node, yaml.ScalarNode):
            weight = 1 + len(node.value)
        elif isinstance(node, yaml.MappingNode):
            weight = 1 + sum(
                _weigh(k, known, depth + 1) + _weigh(v, known, depth + 1) for k, v in node.value
            )
        else:
            weight = 1 + sum(_weigh(item, known, depth + 1) for item in node.value)
        known[id(node)] = weight
    if weight > MAX_CHARACTERS:
        raise YamlError(
            f"its aliases stand for more than {MAX_CHARACTERS} characters: write out what is meant",
            line,
        )
    return weight


def _refused(error: Exception) -> YamlError:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark
        return YamlError(" ".join(str(error).split()), mark.line + 1 if mark else None)
    return YamlError(" ".join(str(error).split()) or type(error).__name__)
