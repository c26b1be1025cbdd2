"""Runs a function in a forked process, as `multiprocessing` does by default on Linux before Python 3.14."""

import multiprocessing
import warnings
from collections.abc import Callable

TIMEOUT_S = 30


def said_in_a_fork(work: Callable[[], object]) -> str:
    """Returns the message of the error that `work` raises in the child, or what it returns, as text."""
    context = multiprocessing.get_context("fork")
    ours, its = context.Pipe(duplex=False)

    def child() -> None:
        try:
            its.send(str(work()))
        except Exception as error:
            its.send(str(error))

    process = context.Process(target=child)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # of this process's threads, which is the point
        process.start()
    try:
        assert ours.poll(TIMEOUT_S), "the forked process hangs"
        return str(ours.recv())
    finally:
        process.kill()
        process.join()
