"""A process that has a place map open, to be killed at any moment."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from place_maps import keyframe

from robot_vision.places.map.opening import open_map


def serve(pipe: Connection, path: str) -> None:
    """Does what comes over the pipe; answers when it is durable."""
    with open_map(path) as places:
        pipe.send("ready")
        while True:
            verb, argument = pipe.recv()
            if verb == "add":
                pipe.send(places.add_many(keyframe(i) for i in argument))
            elif verb == "remove":
                pipe.send(places.remove(argument))
            elif verb == "structure":
                places.set_structure(*argument)
                pipe.send(None)
            else:
                pipe.send(None)
                return


class Worker:
    """Runs `serve` in a process of its own."""

    def __init__(self, path: Path) -> None:
        # Up to Python 3.12 the server that forks workers does not learn this process's sys.path.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["place_worker"])
        self.pipe, other = context.Pipe()
        self._process = context.Process(target=serve, args=(other, str(path)), daemon=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
            self._process.start()
        other.close()
        assert self.pipe.recv() == "ready"

    def do(self, verb: str, argument: Any = None) -> Any:
        """Sends a command and waits for its answer."""
        self.pipe.send((verb, argument))
        return self.pipe.recv()

    def kill(self) -> None:
        """Ends the process as `kill -9` does and waits until it is gone."""
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.join()

    def quit(self) -> None:
        """Lets the process close its map and end."""
        self.do("quit")
        self._process.join()
