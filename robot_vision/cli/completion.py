"""Completes verbs, options, choices, files and names of models in bash and zsh, by argcomplete.

The shell runs the command itself with what was typed in `COMP_LINE`: `eval "$(register-python-argcomplete
robot-vision)"` in ~/.bashrc or ~/.zshrc makes it do so.
"""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from robot_vision.bundle.installed import installed_models

_OF_MODELS = ("model", "bundle")


def typed_words(environment: Mapping[str, str]) -> list[str]:
    """Returns the words before the cursor without the program, from the environment that a shell gives."""
    line = environment.get("COMP_LINE", "")[: int(environment.get("COMP_POINT", 0)) or None]
    try:
        return shlex.split(line)[1:]
    except ValueError:  # a quote that is still open
        return line.split()[1:]


def complete(parser: argparse.ArgumentParser) -> None:
    """Answers the shell and ends the process."""
    try:
        import argcomplete
    except ImportError:  # the shell would run the command
        os._exit(1)

    def models(prefix: str, **about: Any) -> list[str]:
        files: list[str] = argcomplete.completers.FilesCompleter()(prefix, **about)
        return [*(name for name in installed_models() if name.startswith(prefix)), *files]

    for action in _actions(parser):
        if action.dest in _OF_MODELS and not action.choices:
            action.completer = models  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from _actions(sub)
