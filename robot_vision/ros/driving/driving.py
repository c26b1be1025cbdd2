"""Answers in, commands out: what the driver does while it is configured."""

from __future__ import annotations

from typing import Any

from robot_vision.driving.answers import seen
from robot_vision.driving.law import Driven, Law, Seen
from robot_vision.gate.answers import STANDING, Velocity
from robot_vision.gate.decision import Limit, stopping
from robot_vision.gate.moment import Moment
from robot_vision.gate.rules import CLOCK
from robot_vision.messages.stamps import SECOND_NS
from robot_vision.ros.driving.parameters import DriverParameters
from robot_vision.ros.gate.commanding import OUT, Commanding
from robot_vision.ros.gate.diagnostics import OK, WARN, Said
from robot_vision.ros.node.managed_node import ManagedNode
from robot_vision.ros.node.status import status_message

_LOCKSTEP_S = 0.5  # in real time, between the answers to an image for which simulated time may wait
COUNTERS = ("published", "refused_answers", "clock_jumps")


class Driving(Commanding[DriverParameters]):
    """The driver; see `Commanding`."""

    def __init__(self, node: ManagedNode[DriverParameters], *given: Any) -> None:
        self._law = Law(node.parameters.law_settings())
        super().__init__(node, *given)

    def on_change(self) -> None:
        """See `Commanding`."""
        self._law.settings = self._node.parameters.law_settings()

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
            self._say(self._what(self._sent), now)

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
        velocity = self._last.velocity
        self._publish(velocity, now, (image.stamp_ns, "base_link"))
        self._say(self._what(velocity), now)

    def _stops(self, now: Moment) -> tuple[Limit, ...]:
        return stopping(
            self._rules.rules, self._answers, self._node.parameters.max_ahead_s, self._clock, now
        )

    def _stop(self, stops: tuple[Limit, ...], now: Moment) -> None:
        # While the clock stands still nothing happens that was missed; after a jump all is forgotten anyway.
        if any(stop.rule != CLOCK for stop in stops):
            self._law.reset()
        self._last = Driven(STANDING)
        self._stand(stops, now)

    def _what(self, velocity: Velocity) -> Said:
        blocked = self._last.blocked
        if not blocked:
            return Said((), velocity, velocity)
        limit = Limit(blocked, 0.0, "it turns until the way is free", forward=True)
        return Said((limit,), velocity, velocity)

    def status(self) -> Any:
        """See `Commanding`."""
        problems, what = [*self.problems(), *self.other_types(OUT)], self._said
        others = self.others()
        if others:
            problems.append(f"{others}: commands mix")
        level = WARN if problems or what.holding else OK
        counters = self._statistics.counters
        values: dict[str, object] = {
            "rule": what.rule,
            "speed_m_s": self._sent.linear[0],
            "turn_rad_s": self._sent.angular[2],
            **{name: counters.get(name, 0) for name in COUNTERS},
            **{name: n for name, n in sorted(counters.items()) if name.startswith("stops_by_")},
        }
        text = "; ".join([what.text, *problems])
        name = self._node.get_fully_qualified_name()
        return status_message(level, f"{name}: driver", text, "", values)
