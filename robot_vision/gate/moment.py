"""Time as the gate sees it: the clock of stamps and a steady one, and what is wrong with the first."""

from __future__ import annotations

from dataclasses import dataclass

_JUMP_S = 0.2  # between two looks, a clock that is slewed moves by less
_STILL_S = 2.0  # of /clock, in steady time


@dataclass(frozen=True)
class Moment:
    """One moment on both clocks.

    Attributes:
        ros_ns: of the node's clock, which stamps are compared with.
        steady_ns: of a clock that never jumps.
        simulated: whether the node's clock is /clock.
    """

    ros_ns: int
    steady_ns: int
    simulated: bool = False

    def since_s(self, earlier: Moment) -> float:
        """Returns the seconds since an earlier moment; negative where the clock was set back.

        Simulated time counts by /clock, so that a slow simulation is not taken for silence.
        """
        if self.simulated:
            return (self.ros_ns - earlier.ros_ns) * 1e-9
        return (self.steady_ns - earlier.steady_ns) * 1e-9

    def age_s(self, stamp_ns: int) -> float:
        """Returns how old a stamp is, in seconds; negative for one in the future."""
        return (self.ros_ns - stamp_ns) * 1e-9


class ClockWatch:
    """Notices a clock that jumps, stands still or has not begun."""

    def __init__(self) -> None:
        self._last: Moment | None = None
        self._moved: Moment | None = None

    def look(self, now: Moment) -> tuple[str, bool]:
        """Returns why the clock cannot be used now, empty if it can; and whether it has jumped just now.

        After a jump nothing that was heard before it has an age.
        """
        last, self._last = self._last, now
        if last is None or last.simulated != now.simulated or now.ros_ns != last.ros_ns:
            self._moved = now
        assert self._moved is not None
        jumped = last is not None and (
            now.ros_ns < last.ros_ns
            if now.simulated
            else abs((now.ros_ns - last.ros_ns) - (now.steady_ns - last.steady_ns)) > _JUMP_S * 1e9
        )
        if jumped and last is not None:
            by_s = (now.ros_ns - last.ros_ns) * 1e-9
            return f"the clock jumped by {by_s:.1f} s: nothing heard before counts", True
        if now.simulated and now.ros_ns == 0:
            return "there is no message on /clock yet", False
        still_s = (now.steady_ns - self._moved.steady_ns) * 1e-9
        if now.simulated and still_s > _STILL_S:
            return "/clock stands still", False
        return "", False

    def answered(self, now: Moment) -> str:
        """Takes note that a new image was answered, and returns why the clock cannot be used all the same.

        A simulator in lock-step stops time until a command answers its image, however long perception takes.
        """
        self._moved = now
        return self.look(now)[0]
