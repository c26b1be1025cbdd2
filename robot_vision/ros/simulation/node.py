"""The simulator node: a robot that drives through a rendered home by `cmd_vel`.

A lifecycle node. What the robot does and sees is in `robot_vision.simulation`.
"""

from __future__ import annotations

# Before the imports below, which take a second in which a signal may come.
if __name__ == "__main__":
    import sys

    from robot_vision.ros.start import start

    sys.exit(start("simulator_node"))

import functools
import math
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Twist, TwistStamped
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from std_srvs.srv import Trigger

from robot_vision.messages.stamps import SECOND_NS, nanoseconds, stamp_to_ns
from robot_vision.ros.node import qos
from robot_vision.ros.node.graph import other_types
from robot_vision.ros.node.managed_node import ManagedNode
from robot_vision.ros.node.process import run_node
from robot_vision.ros.node.status import status_message
from robot_vision.ros.node.transitions import SUCCESS, reported
from robot_vision.ros.simulation.outputs import Outputs
from robot_vision.ros.simulation.parameters import SimulatorParameters
from robot_vision.simulation.robot import STEP_NS
from robot_vision.simulation.simulator import Simulator

NODE_NAME = "simulator"
_STEP_S = STEP_NS / SECOND_NS
_LEAST_PERIOD_S = 0.001
_MEETING_S = 1.5  # for the last subscriber to have discovered the publisher that has discovered it
_REPEATED_S = 0.1  # /clock while time waits: who comes later, or has lost one, needs it to answer
_MOST_BEHIND_S = 0.5  # that is caught up on; a machine that is too slow falls behind
_CMD_VEL = "cmd_vel"


class SimulatorNode(ManagedNode[SimulatorParameters]):
    """Drives a simulated robot.

    Raises:
        ConfigError: a parameter of a wrong type or out of range.
    """

    def __init__(self, **options: Any) -> None:
        self._simulator: Simulator | None = None
        self._outputs: Outputs | None = None
        self._made: list[Any] = []  # subscription and service
        self._timer: Any = None
        self._steps = 0
        self._commanded_ns: int | None = None  # when the last command came, in simulated time
        self._held_ns: int | None = None  # since when something holds the robot
        self._awaited: tuple[int, float] | None = (
            None  # in lock-step: an image's stamp, and since when
        )
        # In lock-step, until the first image: since when it waits, how many subscriptions there are, and
        # since when there have been that many.
        self._first: tuple[float, int, float] | None = None
        self._clock_at = 0.0  # when /clock was last repeated
        self._began = (0.0, 0)  # steady and simulated time from which the pace is kept
        super().__init__(NODE_NAME, SimulatorParameters, **options)

    # Transitions

    @reported
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Makes the world and the publishers."""
        p = self.parameters
        try:
            self._simulator = Simulator(
                p.made_world(),
                p.seed,
                p.robot(),
                p.mount(),
                walkers=p.walkers,
                moving_doors=p.moving_doors,
            )
            self._outputs = Outputs(self, p, self._simulator)
            self.open_tf()
        except BaseException:
            self._free()
            raise
        self._steps = 0
        self._commanded_ns = self._held_ns = self._awaited = None
        rooms = len(self._simulator.world.rooms)
        which = "the demo's home" if p.world == "demo" else f"home {p.world_seed}"
        self.get_logger().info(f"Simulates a robot in {which}, {rooms} rooms, with seed {p.seed}")
        return SUCCESS

    @reported
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Takes commands, and lets time run."""
        assert self._outputs is not None and self._simulator is not None
        super().on_activate(state)
        self._simulator.command(0.0, 0.0)  # what was commanded before does not count
        self._commanded_ns = None
        p = self.parameters
        # In lock-step time waits for a command that is lost.
        quality = qos.profile("reliable" if p.lockstep else p.subscribe_reliability, 10)
        kind, take = (
            (TwistStamped, self._on_stamped) if p.stamped_cmd_vel else (Twist, self._on_twist)
        )
        self._made = [
            self.create_subscription(kind, _CMD_VEL, take, quality),
            self.create_service(Trigger, "~/reset", self._on_reset),
        ]
        self._outputs.frames()
        self._outputs.clock()
        if p.lockstep:
            self._first = time.monotonic(), 0, time.monotonic()
        else:
            self._begin()
        self._keep_pace()
        return SUCCESS

    @reported
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stops time."""
        self._stop()
        super().on_deactivate(state)
        return SUCCESS

    def _stop(self) -> None:
        timer, self._timer = self._timer, None
        made, self._made = self._made, []
        if timer is not None:
            self.destroy_timer(timer)
        if made:
            self.destroy_subscription(made[0])
            self.destroy_service(made[1])
        self._awaited = self._first = None

    def _free(self) -> None:
        self._stop()
        self.close_tf()
        outputs, self._outputs = self._outputs, None
        if outputs is not None:
            outputs.destroy()
        self._simulator = None

    # Time

    def _keep_pace(self) -> None:
        """Lets a timer call `_tick` as often as there are steps to do."""
        assert self._simulator is not None
        if self._timer is not None:
            self.destroy_timer(self._timer)
        factor = self.parameters.real_time_factor
        period_s = max(_STEP_S / factor, _LEAST_PERIOD_S) if factor > 0 else _LEAST_PERIOD_S
        self._began = time.monotonic(), self._simulator.now_ns
        self._timer = self.create_steady_timer(period_s, self._tick)

    def _tick(self) -> None:
        """Does the steps that are due, up to the next image: commands come in between."""
        if self._simulator is None or self._waits_for_subscriber() or self._waits():
            self._repeat_clock()
            return
        factor = self.parameters.real_time_factor
        due = self.parameters.image_steps
        if factor > 0:
            began, began_ns = self._began
            now = time.monotonic()
            behind_s = (now - began) * factor - (self._simulator.now_ns - began_ns) / SECOND_NS
            if behind_s > _MOST_BEHIND_S * factor:
                self._statistics.count("fell_behind")
                self._began = now, self._simulator.now_ns
            due = int(behind_s / _STEP_S + 1e-6)
        for _ in range(due):
            if self._step():
                return

    def _repeat_clock(self) -> None:
        now = time.monotonic()
        if self._outputs is not None and now - self._clock_at >= _REPEATED_S:
            self._clock_at = now
            self._outputs.clock()

    def _waits_for_subscriber(self) -> bool:
        """Says whether the first image of lock-step is held back, and where the robot is then.

        Nobody who comes later gets them.
        """
        if self._first is None:
            return False
        assert self._outputs is not None
        since, readers, met = self._first
        now = time.monotonic()
        if self._outputs.readers() != readers:
            readers, met = self._outputs.readers(), now
        self._first = since, readers, met
        if (self._outputs.are_images_watched() and now - met >= _MEETING_S) or (
            now - since >= self.parameters.lockstep_timeout_s
        ):
            self._first = None
            self._begin()
        return True

    def _waits(self) -> bool:
        """Says whether a command is awaited; after the timeout it is not."""
        if self._awaited is None:
            return False
        stamp_ns, since = self._awaited
        if time.monotonic() - since < self.parameters.lockstep_timeout_s:
            return True
        assert self._simulator is not None
        total = self._statistics.count("lockstep_timeouts")
        self._warn(
            "lockstep",
            f"No command with the stamp of the image at {stamp_ns / SECOND_NS:.2f} s came on {_CMD_VEL} "
            f"within {self.parameters.lockstep_timeout_s:g} s ({total} so far): the robot brakes. Does the "
            "driver give its commands the stamps of the images?",
        )
        self._simulator.command(0.0, 0.0)
        self._go_on()
        return False

    def _go_on(self) -> None:
        assert self._simulator is not None
        self._awaited = None
        self._began = (
            time.monotonic(),
            self._simulator.now_ns,
        )  # what was waited is not caught up on

    def _step(self) -> bool:
        """Does one step; says whether an image was published."""
        simulator, outputs = self._simulator, self._outputs
        assert simulator is not None and outputs is not None
        self._brake_in_silence(simulator)
        events = simulator.step()
        self._steps += 1
        self._statistics.mark("steps")
        p = self.parameters
        self._held_ns = (self._held_ns or simulator.now_ns) if simulator.held else None
        if self._held_ns and 0 < p.reset_after_s * SECOND_NS <= simulator.now_ns - self._held_ns:
            events.append(simulator.reset())
        outputs.clock()
        outputs.motion()
        for event in events:
            self._statistics.count(f"{event.kind}s")
            outputs.event(event)
        if self._steps % p.image_steps:
            return False
        self._sense()
        return True

    def _begin(self) -> None:
        assert self._outputs is not None
        self._outputs.motion()
        self._sense()

    def _sense(self) -> None:
        assert self._simulator is not None and self._outputs is not None
        if self.parameters.lockstep:
            self._awaited = self._simulator.now_ns, time.monotonic()
        self._outputs.sensors()

    def _brake_in_silence(self, simulator: Simulator) -> None:
        if self._commanded_ns is None:
            return
        if simulator.now_ns - self._commanded_ns >= nanoseconds(self.parameters.cmd_vel_timeout_s):
            self._statistics.count("silences")
            self._warn(
                "silence",
                f"No command on {_CMD_VEL} for {self.parameters.cmd_vel_timeout_s:g} s of simulated time: "
                "the robot brakes",
            )
            simulator.command(0.0, 0.0)
            self._commanded_ns = None

    # Commands

    def _on_twist(self, message: Twist) -> None:
        """Takes a command: the two rates that a differential drive has; others are left out."""
        speed, turn_rate = message.linear.x, message.angular.z
        if not (math.isfinite(speed) and math.isfinite(turn_rate)):
            total = self._statistics.count("bad_commands")
            self._warn(
                "finite", f"{_CMD_VEL}: a command is not finite, and is dropped ({total} so far)"
            )
            return
        left_out = (message.linear.y, message.linear.z, message.angular.x, message.angular.y)
        if any(left_out):
            total = self._statistics.count("partial_commands")
            self._warn(
                "partial",
                f"{_CMD_VEL}: a differential drive has linear.x and angular.z alone; the others are "
                f"left out ({total} commands so far)",
            )
        if self._simulator is not None:
            self._simulator.command(speed, turn_rate)
            self._commanded_ns = self._simulator.now_ns
            self._statistics.mark("commands")

    def _on_stamped(self, message: TwistStamped) -> None:
        """Takes a command; in lock-step time goes on with the one that answers the last image."""
        if self._awaited is not None and stamp_to_ns(message.header.stamp) < self._awaited[0]:
            self._statistics.count("late_commands")  # answers an image before
            return
        self._on_twist(message.twist)
        if self._awaited is not None:
            self._go_on()
            if self.parameters.real_time_factor == 0:
                self._tick()

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Carries the robot to the nearest place of its room where it has room."""
        if self._simulator is None or self._outputs is None:
            response.message = "the node is not active"
            return response
        event = self._simulator.reset()
        self._statistics.count("resets")
        self._outputs.event(event)
        response.success = True
        response.message = f"now at x {event.motion.x:.2f}, y {event.motion.y:.2f}"
        return response

    # Around it

    def _shared_topics(self) -> tuple[str, ...]:
        return ("/tf_static",)  # each node says what it knows

    def _on_change(self, before: SimulatorParameters, after: SimulatorParameters) -> None:
        if self._timer is not None and before.real_time_factor != after.real_time_factor:
            self._keep_pace()

    def _statuses(self) -> list[DiagnosticStatus]:
        name, state, counters = (
            self.get_fully_qualified_name(),
            self.state_label,
            self._statistics.counters,
        )
        level, text = self._condition()
        values: dict[str, object] = {"state": state}
        if self._simulator is not None:
            wanted = self.parameters.real_time_factor
            reached = self._statistics.rate("steps") * _STEP_S
            values |= {
                "time_s": self._simulator.now_ns / SECOND_NS,
                "real_time_factor": reached,
                "distance_m": self._simulator.way_m,
                "commands_hz": self._statistics.rate("commands"),
            }
            if state == "active" and (
                lines := other_types(self, _CMD_VEL, self.parameters.stamped_cmd_vel)
            ):
                level, text = max(level, 1), "; ".join([text, *lines])
                self._warn("type", lines[0])
            waits = self._awaited is not None
            if level == 0 and state == "active" and not waits and 0 < reached < 0.8 * wanted:
                level, text = 1, f"{reached:.2f} of real time instead of {wanted:g}: slow machine"
        for key in (
            "collisions", "resets", "silences", "bad_commands", "partial_commands", "late_commands",
            "lockstep_timeouts", "fell_behind", "incompatible_qos",
        ):  # fmt: skip
            values[key] = counters.get(key, 0)
        return [status_message(level, name, text, "", values)]


main = functools.partial(run_node, SimulatorNode)
