"""Parameter files that are of none of the nodes that were started with them: ROS ignores those silently."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from robot_vision.errors import RobotVisionError
from robot_vision.files.plain_yaml import load_yaml

_FILE = "--params-file"
_PARAMETERS = "ros__parameters"
_TOKENS = {"/**": r"(/\w+)*", "/*": r"/\w+"}


def ignored_sections(arguments: Sequence[str], nodes: Sequence[str]) -> list[str]:
    """Returns a line for each parameter file, or section of it, that names no node but seems to mean one.

    Args:
        arguments: of the command line.
        nodes: full names of the nodes that were started with it.
    """
    lines = []
    for path in [
        value for flag, value in zip(arguments, arguments[1:], strict=False) if flag == _FILE
    ]:
        try:
            sections = list(_sections(load_yaml(Path(path).read_bytes(), foreign=True)))
        except (OSError, ValueError, RobotVisionError):  # rcl has said so
            continue
        others = [s for s in sections if not any(re.fullmatch(_pattern(s), n) for n in nodes)]
        remedy = f"name a section {nodes[0]}, or /** for all nodes"
        if sections and others == sections:
            lines.append(
                f"{path} is ignored: its parameters are of {', '.join(others)} and not of "
                f"{', '.join(nodes)}; {remedy}"
            )
            continue
        for other in others:
            last = other.rpartition("/")[2]
            names = [name.rpartition("/")[2] for name in nodes]
            if last not in names and difflib.get_close_matches(last, names, 1, 0.8):
                lines.append(f"{path}: its section {other} is ignored; {remedy}")
    return lines


def _sections(tree: Any, above: str = "") -> Iterator[str]:
    for key, value in tree.items() if isinstance(tree, dict) else ():
        if key == _PARAMETERS:
            yield above
        else:
            yield from _sections(value, f"{above}/{str(key).strip('/')}")


def _pattern(section: str) -> str:
    return "".join(_TOKENS.get(token, re.escape(token)) for token in re.findall(r"/[^/]*", section))
