"""When the place node maps: what its services and its parameter `mapping` ask for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from robot_vision.errors import ConfigError, RobotVisionError
from robot_vision.ros.node.statistics import Statistics
from robot_vision.ros.places.keyframes import Mapper
from robot_vision.ros.places.parameters import NO_POSES, PlaceParameters
from robot_vision.text.address import shown
from robot_vision.text.counts import counted


class MappingSwitch:
    """Switches a mapper on and off.

    Args:
        mapper: is switched.
        parameters: returns the current ones.
        statistics: counts attempts that failed.
        warn: throttled log: a key and a line.
        log: takes a line for the operator.

    Attributes:
        active: whether the node is, without which nothing is mapped.
    """

    def __init__(
        self,
        mapper: Mapper,
        parameters: Callable[[], PlaceParameters],
        statistics: Statistics,
        warn: Callable[[str, str], None],
        log: Callable[[str], None],
    ) -> None:
        self.active = False
        self._mapper = mapper
        self._parameters = parameters
        self._statistics = statistics
        self._warn = warn
        self._log = log
        self._next = 0.0
        self._ended = False  # by hand: the parameter does not begin it again
        self._switching = threading.Lock()  # services and the timer are different threads

    def begin(self) -> str:
        """Begins to map; returns what to tell the operator.

        Raises:
            ConfigError: the node is not active, or has no poses.
            MapError: the map cannot be written.
        """
        with self._switching:
            return self._begin()

    def _begin(self) -> str:
        mapper, p = self._mapper, self._parameters()
        if not self.active:
            raise ConfigError("The node is not active: activate it first")
        if p.pose_source == "none":
            raise ConfigError(NO_POSES)
        if mapper.running:
            return f"Mapping is on already: {counted(mapper.added, 'keyframe')} so far"
        mapper.start()
        self._ended = False
        text = f"Mapping into {shown(p.map)} as {mapper.source!r}"
        self._log(text)
        return text

    def end(self) -> str:
        """Ends mapping with all keyframes on disk; returns what to tell the operator."""
        with self._switching:
            self._ended = True
            return self._end()

    def _end(self) -> str:
        mapper = self._mapper
        if not mapper.running:
            return "Mapping is off"
        lost = mapper.stop()
        text = f"Mapping ended: {counted(mapper.added, 'keyframe')} added" + (
            f", {lost} lost since the map cannot be written" if lost else ""
        )
        self._log(text)
        return text

    def follow(self, at_once: bool = False) -> None:
        """Begins if the parameter asks for it; while that cannot be, tries again once a retry period.

        After `end` the parameter asks for nothing until it was false and is true again.

        Args:
            at_once: the parameter became true, or the node activated: does not wait for the period to pass.
        """
        p, now = self._parameters(), time.monotonic()
        if at_once:
            self._ended = False
        if not p.mapping or self._ended or self._mapper.running or not self.active:
            return
        if now < self._next and not at_once:
            return
        self._next = now + p.retry_period_s
        if not self._switching.acquire(blocking=at_once):
            return  # a service is at it
        try:
            if not self._ended:  # by a service that was at it until now
                self._begin()
        except RobotVisionError as error:
            self._statistics.count("mapping_not_begun")
            self._warn("mapping", f"Mapping cannot begin: {error}")
        finally:
            self._switching.release()
