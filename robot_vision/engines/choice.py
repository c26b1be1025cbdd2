"""Which program of a bundle runs on this machine, and in which engine.

`auto` takes the fastest of those that are certified for engine, device and instruction set; a program may be
named too. What was fastest is remembered by bundle and machine (`remembered.py`), so that the next start
times nothing. What is remembered, and else float32, stays unless another program gains 10 percent. A timing
that other processes disturbed is repeated at the next start, three times at most.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.bundle.programs import FLOAT32, PRECISIONS, Certificate, Program
from robot_vision.engines.base import Engine, EngineSettings
from robot_vision.engines.factory import create_engine, places
from robot_vision.engines.machine import instructions
from robot_vision.engines.remembered import Choice, Machine, Way, recall, remember
from robot_vision.errors import EngineError, RobotVisionError, unknown

GAIN = 0.9  # of the time of what would run otherwise: what takes more is not worth a change
MOST_S = 6.0  # after that no further program is begun
_EACH_S = 1.5  # at most, for two programs in turns; most need a few runs
_LEAST = 10  # runs of each
_ALIKE = 3, 1.05  # if as many of the shortest runs are within this ratio, nothing disturbed them
_DISTURBED = 3  # timings in a row; then the last one holds
_WARM_UP = 2

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Started:
    """A program that runs.

    Attributes:
        bundle: as the program sees it.
        engine: that runs it.
        said: why it and no other, in a line for people; empty where there was no choice.
    """

    bundle: ModelBundle
    engine: Engine
    said: str = ""


def start_program(
    bundle: ModelBundle,
    precision: str,
    asked: EngineSettings,
    engine: str = "auto",
    fresh: bool = False,
) -> Started:
    """Starts a program of a bundle.

    Args:
        bundle: as any of its programs sees it.
        precision: `auto`, the name of a program, or what `create_engine` computes in.
        asked: how the engine is to run; its `device` may be `auto`, and its `precision` does not count.
        engine: `auto`, or the name of one.
        fresh: time all programs, whatever is remembered. Only `auto` heeds it.

    Raises:
        EngineError: no such program, engine or device, or none that works; the message lists what there is.
    """
    if precision == "auto":
        return _fastest(bundle, asked, engine, fresh)
    names = [FLOAT32, *(p.name for p in bundle.programs)]
    if precision not in (*names, *PRECISIONS):
        allowed = dict.fromkeys(["auto", *names, *PRECISIONS])
        raise EngineError(unknown(f"precision of {bundle.name}", precision, allowed))
    return _named(bundle, precision, asked, engine)


def _named(bundle: ModelBundle, name: str, asked: EngineSettings, engine: str) -> Started:
    """Starts a program by its name, if possible in an engine for which it is certified."""
    for found in places(engine, asked.device) if name != FLOAT32 else ():
        if _certificate(bundle, name, *found) is not None:
            way = Way(name, *found)
            try:
                return _start(bundle, way, asked)
            except EngineError as error:
                _log.warning("%s, for which it is certified, does not run: %s", way.text, error)
    started = _start(bundle, Way(name, engine, asked.device), asked)
    running = started.engine
    if name != FLOAT32 and _certificate(bundle, name, running.name, running.device) is None:
        program, here = _program(bundle, name), instructions(running.device, running.name)
        good = [c for c in program.certificates if c.passed]
        there = ", ".join(f"{c.engine} on {c.device} with {c.instructions}" for c in good)
        _log.warning(
            "%s: %s is not certified for %s on %s with %s: %s%s",
            bundle.name, name, running.name, running.device, here or "this device",
            _why_not(program.certificate(running.name, running.device, here)),
            f" (it is for {there})" if there else "",
        )  # fmt: skip
    return started


def _why_not(certificate: Certificate | None) -> str:
    """Says why a program is not certified where it runs, by the certificate of that place, if any."""
    if certificate is None:
        return "its accuracy there was never measured"
    heads = certificate.heads.items()
    said = "; ".join(f"{n}: {h.get('why', 'refused')}" for n, h in heads if not h["passed"])
    return said or "not all of its heads were measured there"


def _program(bundle: ModelBundle, name: str) -> Program:
    """Returns a program by its name; where none has it, the bundle's own graph in the precision called so."""
    return next((p for p in bundle.programs if p.name == name), Program(name, precision=name))


def _certificate(bundle: ModelBundle, program: str, engine: str, device: str) -> Certificate | None:
    """Returns the certificate by which a program may be chosen here; None where there is none."""
    found = _program(bundle, program).certificate(engine, device, instructions(device, engine))
    return found if found is not None and found.passed else None


def _start(bundle: ModelBundle, way: Way, asked: EngineSettings) -> Started:
    """Starts a program, or a precision, in an engine on a device; either may be `auto`.

    Raises:
        EngineError: it does not load, or gives other answers than where it was made.
    """
    program = _program(bundle, way.program)
    own = _as_program(bundle, program.name if program in bundle.programs else FLOAT32)
    created = create_engine(
        own,
        way.engine,
        way.device,
        program.precision,
        asked.threads,
        asked.streams,
        asked.max_batch,
    )
    return Started(own, created)


def _as_program(bundle: ModelBundle, name: str) -> ModelBundle:
    """Returns the bundle as a program sees it.

    Raises:
        EngineError: its files were replaced since it was loaded, or have no such program.
    """
    if bundle.program == name:
        return bundle
    try:
        found = ModelBundle.load(bundle.path, name)
    except RobotVisionError as error:
        raise EngineError(str(error)) from error
    if found.sha256 != bundle.sha256:
        raise EngineError(f"{bundle.path} was replaced while it was loaded: start again")
    return found


def _fastest(bundle: ModelBundle, asked: EngineSettings, engine: str, fresh: bool) -> Started:
    """Starts what is remembered, and else what is fastest."""
    bundle = _as_program(bundle, FLOAT32)
    machine = Machine.here(engine, asked)
    before = recall(bundle, machine)
    holds = before is not None and before.versions == machine.versions
    if before is not None and holds and not fresh and before.disturbed in (0, _DISTURBED):
        way = before.way
        if way.program == FLOAT32 or _certificate(bundle, way.program, way.engine, way.device):
            try:
                started = _start(bundle, way, asked)
            except EngineError as error:
                _log.warning("%s, chosen before, does not run any more: %s", way.text, error)
            else:
                return Started(started.bundle, started.engine, f"{before.said} (remembered)")
    base = _start(bundle, Way(FLOAT32, engine, asked.device), asked)
    candidates = list(_candidates(bundle, engine, base.engine))
    if all(way.program == FLOAT32 for way in candidates):
        names = ", ".join(p.name for p in bundle.programs if p.name != FLOAT32)
        running = base.engine
        here = (
            f"{running.name} on {running.device} with {instructions(running.device, running.name)}"
        )
        said = f"float32, since no other program ({names}) is certified for {here}" if names else ""
        return Started(base.bundle, running, said)
    if before is not None and holds:  # first what the last timing did not come to
        candidates.sort(key=lambda way: way.text in before.milliseconds)
    return _timed(bundle, asked, machine, base, candidates, before)


def _candidates(bundle: ModelBundle, engine: str, base: Engine) -> Iterator[Way]:
    """Yields what may run in place of float32 in its first engine, on the same device."""
    found = places(engine, base.device)
    names = [FLOAT32, *(p.name for p in bundle.programs if p.name != FLOAT32)]
    for program in reversed(names):  # float32 last: what there may be no time for is known best
        for name, device in found:
            if program == FLOAT32:
                if name != base.name:
                    yield Way(program, name, device)
            elif _certificate(bundle, program, name, device) is not None:
                yield Way(program, name, device)


def _timed(
    bundle: ModelBundle,
    asked: EngineSettings,
    machine: Machine,
    base: Started,
    candidates: list[Way],
    before: Choice | None,
) -> Started:
    """Times what may run, each in turns with float32, and starts the fastest; remembers it.

    Two programs at most are loaded at a time.
    """
    float32 = Way(FLOAT32, base.engine.name, base.engine.device)
    seconds: dict[Way, float] = {float32: math.inf}
    quiet = True
    begin = time.monotonic()
    try:
        for number, way in enumerate(candidates):
            if time.monotonic() - begin > MOST_S:
                left = ", ".join(w.text for w in candidates[number:])
                _log.warning("not timed, since %g s were over: %s", MOST_S, left)
                quiet = False
                break
            try:
                started = _start(bundle, way, asked)
                try:
                    seconds[way], again, alike = _in_turns(started, base)
                finally:
                    started.engine.close()
            except EngineError as error:
                _log.warning("%s is left out: %s", way.text, error)
            else:
                seconds[float32] = min(seconds[float32], again)
                quiet = quiet and alike
        order = sorted(seconds, key=lambda w: seconds[w])
        stays = before.way if before is not None and before.way in seconds else float32
        if not _gains(seconds, order[0], stays, bundle, asked):
            order.remove(stays)
            order.insert(0, stays)
        for way in order:
            try:
                started = base if way == float32 else _start(bundle, way, asked)
            except EngineError as error:
                _log.warning("%s is left out: %s", way.text, error)
                continue
            if started is not base:
                base.engine.close()
            said = _said(bundle, seconds, way, float32)
            taken = {w.text: round(t * 1e3, 3) for w, t in seconds.items() if math.isfinite(t)}
            last = before.disturbed % _DISTURBED if before is not None else 0
            disturbed = 0 if quiet else last + 1
            remember(bundle, machine, Choice(way, machine.versions, said, taken, disturbed))
            if disturbed and disturbed < _DISTURBED:
                said += " (other processes disturbed the timing: the next start times again)"
            return Started(started.bundle, started.engine, said)
    except BaseException:  # Ctrl-C too
        base.engine.close()
        raise
    raise AssertionError("float32 is among them")


def _gains(
    seconds: dict[Way, float], best: Way, stays: Way, bundle: ModelBundle, asked: EngineSettings
) -> bool:
    """Returns whether the fastest gains enough over what would run else, in turns with that too."""
    if seconds[best] > GAIN * seconds[stays]:
        return False
    if stays.program == FLOAT32:
        return True
    with contextlib.ExitStack() as stack:
        started = []
        for way in (best, stays):
            try:
                started.append(_start(bundle, way, asked))
            except EngineError:
                return way == stays  # what failed is said where the fastest is started
            stack.callback(started[-1].engine.close)
        new, old, _ = _in_turns(*started)
    return new <= GAIN * old


def _in_turns(one: Started, other: Started) -> tuple[float, float, bool]:
    """Times two programs in turns, so that what else the machine does disturbs both.

    Returns:
        Seconds of the shortest run of each: all that disturbs makes runs longer. (Of two equal programs of
        2 ms on two cores with a load of 10, shortest runs in half a second differed by up to 26 percent,
        medians by 45.) And whether several runs of each were as short, so that these are true.
    """
    size = one.bundle.spec.input
    shape = (1, size.height, size.width, 3)
    batch = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    engines = (one.engine, other.engine)
    for engine in engines * _WARM_UP:
        engine.run(batch)
    taken: tuple[list[float], list[float]] = ([], [])
    begin = time.perf_counter()
    alike = False
    while len(taken[1]) < _LEAST or not (alike or time.perf_counter() - begin > _EACH_S):
        for engine, times in zip(engines, taken, strict=True):
            start = time.perf_counter()
            engine.run(batch)
            times.append(time.perf_counter() - start)
        alike = all(_alike(times) for times in taken)
    return min(taken[0]), min(taken[1]), alike


def _alike(times: list[float]) -> bool:
    count, ratio = _ALIKE
    shortest = sorted(times)[:count]
    return len(shortest) == count and shortest[-1] <= ratio * shortest[0]


def _said(bundle: ModelBundle, seconds: dict[Way, float], way: Way, float32: Way) -> str:
    others = [w for w in seconds if w != way]
    if not others:
        return f"{way.text}: nothing else runs here"
    if way == float32:
        best = min(others, key=lambda w: seconds[w])
        faster = f", less than {1 - GAIN:.0%} faster" if seconds[best] < seconds[way] else ""
        return (
            f"{way.text}: {seconds[way] * 1e3:.3g} ms a frame; the fastest of the others, {best.text}, takes "
            f"{seconds[best] * 1e3:.3g} ms{faster}"
        )
    line = f"{way.text}: {seconds[way] * 1e3:.3g} ms against {seconds[float32] * 1e3:.3g}"
    certificate = _certificate(bundle, way.program, way.engine, way.device)
    if certificate is None:
        return line
    texts = [str(head["text"]) for head in certificate.heads.values() if head.get("text")]
    count = certificate.images.get("count")
    return f"{line}; on {count} images {', '.join(texts)}" if texts and count else line
