"""How fast a robot may be before something that it must not reach."""

from __future__ import annotations

import math


def braking_speed(
    left_m: float, deceleration: float, reaction_s: float, final: float = 0.0
) -> float:
    """Returns the speed v from which a robot is down to a final one within a distance, in m/s.

    v t + (v^2 - final^2) / 2a = left.

    Args:
        left_m: the distance; what is not above 0 gives the final speed.
        deceleration: a, in m/s^2.
        reaction_s: t, for which it goes on before it brakes.
        final: in m/s.
    """
    if not left_m > 0:
        return final
    a, t = deceleration, reaction_s
    return max(a * (math.sqrt(t * t + (final / a) ** 2 + 2 * left_m / a) - t), final)
