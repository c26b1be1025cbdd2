"""YAML from files that somebody else may have written: plain values only, and never more than the file shows.

`yaml.safe_load` makes no objects, but three lines of aliases of aliases ("billion laughs") still stand for
more values than fit into memory, the first time that they are printed, compared or merged.

Nor does it say what it reads otherwise than people do: it keeps the last of two equal keys, and takes 010
for 8, 0_5 for 5, 1:30 for 90 and 1e-3 for text (YAML 1.1). Here 1e-3 is a number; the others are refused.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

MAX_BYTES = 1 << 20
MAX_CHARACTERS = 4 << 20  # of all values, once aliases are written out; a node counts as one more
MAX_DEPTH = 64
_BEGUN = (-1, -1)

_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_PLAIN_NUMBER = re.compile(r"[-+]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][-+]?\d+)?|[-+]?\.(?i:inf|nan)")
# The loader in C reads a file at the limit in a second rather than in half a minute.
_Fastest: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Fastest):
    """With the floats of YAML 1.2, which need no point."""


_Loader.add_implicit_resolver(
    _NUMBERS[1], re.compile(r"[-+]?(\d+\.?|\d*\.\d+)[eE][-+]?\d+$"), [*"-+.0123456789"]
)


class YamlError(ValueError):
    """Text that is not YAML, holds what is not plain, or stands for too much.

    Attributes:
        line: where, counted from 1; None where that is not known.
    """

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


def load_yaml(text: str | bytes, foreign: bool = False) -> Any:
    """Returns dicts, lists, text, numbers, dates and None.

    Args:
        text: of the file.
        foreign: take equal keys and numbers as PyYAML does: another program wrote the file.

    Raises:
        YamlError: not YAML, a tag that makes objects, too long, too deep, aliases that stand for too much, or
            what YAML reads otherwise than people.
    """
    return construct(compose(text), foreign)


def compose(text: str | bytes) -> Any:
    """Returns the checked root node, which knows its lines; None for an empty text. See `load_yaml`."""
    if len(text) > MAX_BYTES:
        raise YamlError(f"it has {len(text)} characters: at most {MAX_BYTES} are read")
    try:
        # Nodes are composed by recursion, in C without a limit: so depth is looked at first, event by event.
        depth = 0
        for event in yaml.parse(text, _Loader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                mark = event.start_mark
                raise YamlError(
                    f"it is nested more than {MAX_DEPTH} deep", mark.line + 1 if mark else None
                )
        root = yaml.compose(text, _Loader)
    except YamlError:
        raise
    except (yaml.YAMLError, UnicodeError, RecursionError, ValueError) as error:
        raise _refused(error) from error
    if root is not None:
        _weigh(root, {})
    return root


def construct(node: Any, foreign: bool = False) -> Any:
    """Returns the values of a node of `compose`; see `load_yaml`."""
    if node is None:
        return None
    if not foreign:
        _refuse_misread(node, set())
    try:
        # Of the loader in Python: it needs no text to construct.
        return yaml.SafeLoader("").construct_document(node)
    except (yaml.YAMLError, RecursionError, ValueError, TypeError, OverflowError) as error:
        raise _refused(error) from error


def _weigh(node: Any, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Returns for how many characters and levels a node stands, its aliases written out."""
    found = known.get(id(node))
    line = node.start_mark.line + 1
    if found == _BEGUN:
        raise YamlError("an alias stands for what it is part of", line)
    if found is None:
        known[id(node)] = _BEGUN
        inside: list[Any] = []
        own = 1
        if isinstance(node, yaml.ScalarNode):
            own += len(node.value)
        elif isinstance(node, yaml.MappingNode):
            inside = [part for pair in node.value for part in pair]
        else:
            inside = node.value
        parts = [_weigh(part, known) for part in inside]
        found = own + sum(p[0] for p in parts), 1 + max((p[1] for p in parts), default=0)
        known[id(node)] = found
    if found[0] > MAX_CHARACTERS:
        raise YamlError(
            f"its aliases stand for more than {MAX_CHARACTERS} characters: write them out",
            line,
        )
    if found[1] > MAX_DEPTH + 1:
        raise YamlError(f"its aliases are nested more than {MAX_DEPTH} deep", line)
    return found


def _refuse_misread(node: Any, done: set[int]) -> None:
    """Refuses equal keys of a mapping, and numbers that are not written in plain decimal digits."""
    if id(node) in done:
        return
    done.add(id(node))
    line = node.start_mark.line + 1
    if isinstance(node, yaml.ScalarNode):
        if node.tag in _NUMBERS and not _PLAIN_NUMBER.fullmatch(node.value):
            raise YamlError(
                f"{node.value} (line {line}) is another number in YAML: write it in decimal digits, or in "
                "quotes",
                line,
            )
        return
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    line = key.start_mark.line + 1
                    raise YamlError(
                        f"{key.value!r} is there twice (line {line}): give it once", line
                    )
                seen.add((key.tag, key.value))
    inside = node.value if isinstance(node, yaml.SequenceNode) else sum(node.value, ())
    for part in inside:
        _refuse_misread(part, done)


def _refused(error: Exception) -> YamlError:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark
        return YamlError(" ".join(str(error).split()), mark.line + 1 if mark else None)
    return YamlError(" ".join(str(error).split()) or type(error).__name__)
