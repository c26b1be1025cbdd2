"""The driver node: a steering head's answers in, commands out.

A lifecycle node. The laws are in `robot_vision.driving`; what it hears is judged as the gate does.
"""

from __future__ import annotations

# Before the imports below, which take a second in which a signal may come.
if __name__ == "__main__":
    import sys

    from robot_vision.ros.start import start

    sys.exit(start("driver_node"))

import functools
from typing import Any

from robot_vision.driving.answers import COLLISION, STEERING, answers_of, seen
from robot_vision.driving.law import Driven, Law, Seen
from robot_vision.gate.answers import STANDING
from robot_vision.gate.decision import Limit
from robot_vision.gate.moment import Moment
from robot_vision.gate.rules import CLOCK, Rules
from robot_vision.messages.stamps import SECOND_NS
from robot_vision.ros.driving.parameters import DriverParameters
from robot_vision.ros.gate.commanding import Driving
from robot_vision.ros.gate.commanding_node import CommandingNode
from robot_vision.ros.gate.diagnostics import Said
from robot_vision.ros.node.managed_node import ManagedNode
from robot_vision.ros.node.process import run_node

_LOCKSTEP_S = 0.5  # in real time, between the answers to an image for which simulated time may wait


class Steering(Driving[DriverParameters]):
    """Answers in, commands out; see `Commanding`."""

    KIND = "driver"

    def __init__(self, node: ManagedNode[DriverParameters], *given: Any) -> None:
        self._law = Law(node.parameters)
        super().__init__(node, *given)

    def on_change(self) -> None:
        """See `Commanding`."""
        self._law.settings = self._node.parameters

    def _forget(self) -> None:
        super()._forget()
        self._law.reset()
        self._driven_ns = 0  # stamp of the last image that was driven by
        self._waiting = 0, 0  # stamp of an image that waits, and since when in steady time
        self._last = Driven(STANDING)

    def _answered(self, now: Moment, seen_ns: int | None) -> None:
        stops = self._stops(now)
        found = self._image()
        if stops:
            self._stop(stops, now)
        elif found is not None and found[1]:
            self._drive(found[0], now)

    def _on_tick(self) -> None:
        now = self._look()
        stops = self._stops(now)
        found = self._image()
        if stops:
            self._stop(stops, now)
        elif found is not None and self._has_waited(found[0].stamp_ns, now):
            self._drive(found[0], now)  # the distance is of another sensor, and lags
        else:
            self._say(Said(self._limits(), self._sent, self._sent), now)

    def _has_waited(self, stamp_ns: int, now: Moment) -> bool:
        """Says whether an image has waited for its distance for a tick, or as long as lock-step may take."""
        waiting, since_ns = self._waiting
        if stamp_ns != waiting:
            self._waiting = stamp_ns, now.steady_ns
            return False
        return not now.simulated or now.steady_ns - since_ns >= _LOCKSTEP_S * SECOND_NS

    def _image(self) -> tuple[Seen, bool] | None:
        """Returns an image that was not driven by yet; see `seen`."""
        found = seen(self._answers, bool(self._node.parameters.distance_topic))
        return None if found is None or found[0].stamp_ns == self._driven_ns else found

    def _drive(self, image: Seen, now: Moment) -> None:
        self._driven_ns = image.stamp_ns
        self._last = self._law.drive(image)
        self._command(self._last.velocity, now, image.stamp_ns, *self._limits())

    def _stop(self, stops: tuple[Limit, ...], now: Moment) -> None:
        # While the clock stands still nothing happens that was missed; after a jump all is forgotten anyway.
        if any(stop.rule != CLOCK for stop in stops):
            self._law.reset()
        self._last = Driven(STANDING)
        self._stand(stops, now)

    def _limits(self) -> tuple[Limit, ...]:
        blocked = self._last.blocked
        why = "it turns until the way is free"
        return (Limit(blocked, 0.0, why, forward=True),) if blocked else ()


class DriverNode(CommandingNode[DriverParameters]):
    """Drives by what a camera's steering head says; see `CommandingNode`."""

    NAME, PARAMETERS = "driver", DriverParameters

    def _made(self) -> Steering:
        p = self.parameters
        rules = answers_of(
            p.answer_topic(STEERING),
            p.answer_topic(COLLISION),
            p.distance_topic,
            p.classification_topic,
            p.belief_topic,
            p.max_age_s,
        )
        return Steering(*self._given(Rules(rules)))


main = functools.partial(run_node, DriverNode)
