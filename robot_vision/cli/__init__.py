# PYTHON_ARGCOMPLETE_OK
"""`robot-vision <verb>`: one file a verb, imported only when it is called."""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from robot_vision import __version__
from robot_vision.errors import RobotVisionError, nearest
from robot_vision.text.address import shown, without_secrets

_DESCRIPTION = (
    "Runs, evaluates, trains, calibrates and exports the models of robot_vision, and builds place maps. "
    "`robot-vision VERB --help` describes one verb."
)

# Each module has `add_arguments(parser)` and `run(args) -> int` (the exit status). Where work can go on after
# Ctrl-C, it has `interrupted(args) -> str`, which says how.
VERBS = {
    "infer": "run a model on images, a folder, a video or a rosbag",
    "evaluate": "replay rosbags through a model and write metrics and a report",
    "stress": "degrade a recording step by step and measure how much a model loses",
    "filter": "compare filtered classes and poses with the raw ones, on rosbags",
    "info": "show and verify a model bundle, list the engines of this machine",
    "doctor": "check this machine, its ROS 2 and the running cameras, and say what to change",
    "export": "write a bundle from a checkpoint, a published one too, or from a package's weights",
    "pull": "take a bundle from the Hugging Face hub, verified",
    "init": "write a project on your own images: training configuration, launch file and commands",
    "train": "fine-tune a network on labelled images or poses and write its bundle",
    "calibrate": "calibrate the probabilities and covariances of a bundle on your own data",
    "optimise": "add faster programs to a bundle, each with a certificate of what it costs",
    "profile": "write a trace of the processing time of each frame, by stage and layer",
    "benchmark": "compare two results of `make bench`",
    "view": "show a recording, what a model says of it, an evaluation or a map in Rerun's viewer",
    "explain": "draw which parts of an image an answer rests on and what each stage of the network sees",
    "make-bag": "write a rosbag2 from a folder of frames or a data set, with what is true of them",
    "map": "build, show, merge, prune and copy place maps",
    "teach": "make a route to be repeated of one drive: a place map and the way through it",
    "data": "inspect a data set before training on it",
    "drive": "let drivers drive through simulated homes; judge them, or record them to train on",
    "demo": "drive a camera through a small rendered world and show what the node publishes",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb; an expected error is one line on stderr and exit status 2."""
    argv = list(sys.argv[1:] if argv is None else argv)
    words = argv
    if "_ARGCOMPLETE" in os.environ:
        from robot_vision.cli.completion import typed_words

        words = typed_words(os.environ)
    verb = next((a for a in words if not a.startswith("-")), None)
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files may be no UTF-8
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return _run(argv, verb)
    except RobotVisionError as error:
        print(f"robot-vision {verb}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # e.g. `robot-vision infer ... | head`
        sys.stderr.close()
        return 0
    except OSError as error:  # a full disk, a folder that may not be written
        full = "; make room on the disk that is written to" if error.errno == errno.ENOSPC else ""
        print(f"robot-vision {verb}: {without_secrets(str(error))}{full}", file=sys.stderr)
        return 2


# Arguments in which an empty word, as of a variable of the shell that is not set, is not the folder where one
# stands; readers of bags and data sets say so themselves.
_PATHS = "annotate attach bundle map model others out output project report target".split()


# What is read: of two the first is left out. That the last of two settings counts is what shells are used to.
_READ = "bag data database labels map_bag model poses predictions queries topic".split()


class _Store(argparse._StoreAction):
    """Says what counts where an option that takes one source is given again."""

    before: Any = None

    def __call__(self, parser: Any, namespace: Any, values: Any, option: str | None = None) -> None:
        if self.dest in _READ and self.before not in (None, values):
            said = without_secrets(
                f"note: {option} is given again: {values} counts, and not {self.before}"
            )
            print(said, file=sys.stderr)
        self.before = values
        super().__call__(parser, namespace, values, option)


class _Parser(argparse.ArgumentParser):
    """Says in one line, which quotes no secret, what is wrong; parsers of verbs are of its kind, too."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._words: list[str] = []
        for name in (None, "store"):
            self.register("action", name, _Store)

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        if action.dest in _PATHS and "" in arg_strings:
            raise argparse.ArgumentError(action, "it is empty")
        return super()._get_values(action, arg_strings)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._words = list(args or ())
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        text = " ".join(without_secrets(message).split())
        # A misspelt option that is required is named first as absent.
        options = self._option_string_actions
        names = [word.partition("=")[0] for word in self._words if word.startswith("--")]
        odd = [name for name in names if not any(o.startswith(name) for o in options)]
        if odd and "arguments are required" in text:
            text += f"; there is no {self._shown(odd)}"
        # What is wrong with one argument says itself what is allowed.
        hint = "" if text.startswith("argument ") else f" ({self.prog} --help says what it takes)"
        self.exit(2, f"{self.prog}: error: {text}{hint}\n")

    def unknown(self, words: Sequence[str], args: argparse.Namespace) -> NoReturn:
        """Refuses words that nothing takes, with the nearest options of the verb that was chosen."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                action.choices[getattr(args, action.dest)].unknown(words, args)
        self.error(f"unrecognized arguments: {self._shown(words)}")

    def _shown(self, words: Sequence[str]) -> str:
        """Returns words, each with the nearest of the options."""
        options, said = {o.lstrip("-"): o for o in self._option_string_actions}, []
        for word in words:
            name = word.partition("=")[0].lstrip("-")
            near = nearest(name, options) if word.startswith("--") else ""
            said.append(shown(word) + (f" (did you mean {options[near]}?)" if near else ""))
        return " ".join(said)


def _run(argv: list[str], verb: str | None) -> int:
    parser = _Parser(prog="robot-vision", description=_DESCRIPTION)
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(dest="verb", metavar="verb", required=True)
    modules = {}
    for name, text in VERBS.items():
        sub = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name == verb:
            modules[name] = importlib.import_module(f"robot_vision.cli.{name.replace('-', '_')}")
            modules[name].add_arguments(sub)
    if "_ARGCOMPLETE" in os.environ:
        from robot_vision.cli.completion import complete

        complete(parser)
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        parser.unknown(unknown, args)
    module = modules[args.verb]
    try:
        status: int = module.run(args)
    except KeyboardInterrupt:
        if not hasattr(module, "interrupted"):
            raise
        print(f"interrupted: {module.interrupted(args)}", file=sys.stderr)
        return 130
    return status
