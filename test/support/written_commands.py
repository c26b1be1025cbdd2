"""Runs what a page says: each file that it shows is written, each command of `robot-vision` run, in order."""

from __future__ import annotations

import glob
import os
import re
import shlex
from pathlib import Path

import yaml

from robot_vision.cli import main

# Only what makes a training long or needs the internet is set otherwise.
QUICK = {
    "network.weights": "null",
    "network.input": "{height: 64, width: 64}",
    "loop.epochs": "1",
    "loop.threads": "1",
    "loop.accelerator": "cpu",
}


def run_page(text: str, epochs: int = 1) -> tuple[list[list[str]], list[list[str]]]:
    """Writes a page's files into the working directory and runs its commands.

    Args:
        text: of the page, as Markdown. The first line of a YAML file names it.
        epochs: of each training.

    Returns:
        The commands that were run, without `robot-vision`, and those of `ros2`, which were not. The working
        directory is where `cd` led.
    """
    done, left = [], []
    for language, block in re.findall(r"```(\w*)\n(.*?)```", text, re.DOTALL):
        if language == "yaml":
            name = re.match(r"# (\S+\.yaml)", block)
            assert name, f"the first line of a file does not name it:\n{block}"
            assert yaml.safe_load(block)
            Path(name[1]).write_text(block, encoding="utf-8")
            continue
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if not words or words[0] not in ("robot-vision", "ros2", "cd"):
                continue
            if words[0] == "cd":
                os.chdir(words[1])
                continue
            if words[0] == "ros2":
                left.append(words)
                continue
            arguments = [found for word in words[1:] for found in sorted(glob.glob(word)) or [word]]
            if arguments[0] == "train":
                for key, value in {**QUICK, "loop.epochs": str(epochs)}.items():
                    arguments += ["--set", f"{key}={value}"]
            assert main(arguments) == 0, line
            done.append(words[1:])
    return done, left
