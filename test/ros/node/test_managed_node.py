"""What every managed node does by itself: when its parameters may change, and how it ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

pytest.importorskip("rclpy")

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from ros_helpers import wait_until
from std_msgs.msg import Float64

from robot_vision.errors import BundleError, ConfigError
from robot_vision.ros.node.managed_node import ManagedNode
from robot_vision.ros.node.managed_parameters import ManagedParameters
from robot_vision.ros.node.transitions import ERROR, FAILURE, SUCCESS, reported
from robot_vision.settings.parameters import LIVE, parameter

pytestmark = pytest.mark.ros


@dataclass(frozen=True)
class LampParameters(ManagedParameters):
    """Settings of the lamp."""

    colour: str = parameter("red", "Colour of the light.")
    watts: float = parameter(5.0, "Power.", low=0, high=100, change=LIVE)


class Lamp(ManagedNode[LampParameters]):
    """A node that says when it was freed, and that fails where it is told to."""

    def __init__(self, **options: Any) -> None:
        self.fails: BaseException | None = None
        self.fails_to_free = False
        self.freed = 0
        self.lit = ""
        self.changes: list[tuple[float, float]] = []
        super().__init__("lamp", LampParameters, **options)

    @reported
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        if self.fails is not None:
            raise self.fails
        self.lit = self.parameters.colour
        return SUCCESS

    def _free(self) -> None:
        if self.fails_to_free:
            raise RuntimeError("stuck")
        self.freed += 1
        self.lit = ""

    def _statuses(self) -> list[Any]:
        return [DiagnosticStatus(level=DiagnosticStatus.OK, name="lamp")]

    def _on_change(self, before: LampParameters, after: LampParameters) -> None:
        self.changes.append((before.watts, after.watts))


@pytest.fixture
def lamp() -> Iterator[Lamp]:
    context = rclpy.Context()
    rclpy.init(context=context)
    node = Lamp(context=context, parameter_overrides=[Parameter("autostart", value=False)])
    yield node
    node.destroy_node()
    context.try_shutdown()


def _set(node: Lamp, **values: Any) -> Any:
    return node.set_parameters_atomically([Parameter(k, value=v) for k, v in values.items()])


def test_parameters_that_configure_reads_are_free_until_it_did_and_after_cleanup(
    lamp: Lamp,
) -> None:
    assert _set(lamp, colour="blue").successful
    assert lamp.trigger_configure() == SUCCESS and lamp.lit == "blue"
    for activated in (False, True):
        if activated:
            assert lamp.trigger_activate() == SUCCESS
        refused = _set(lamp, colour="green")
        assert not refused.successful and "cleanup" in refused.reason
        assert _set(lamp, watts=lamp.parameters.watts + 1).successful
    assert lamp.changes[-2:] == [(5.0, 6.0), (6.0, 7.0)]
    assert lamp.trigger_deactivate() == SUCCESS and lamp.trigger_cleanup() == SUCCESS
    assert _set(lamp, colour="green").successful and lamp.lit == ""


@pytest.mark.parametrize(
    ("error", "outcome"), [(ConfigError("no bulb"), FAILURE), (KeyError("bulb"), ERROR)]
)
def test_parameters_can_be_put_right_after_configure_failed(
    lamp: Lamp, error: Exception, outcome: TransitionCallbackReturn
) -> None:
    lamp.fails = error
    assert lamp.trigger_configure() == outcome and "bulb" in lamp.problem
    assert lamp.state_label == "unconfigured"
    assert _set(lamp, colour="blue").successful
    lamp.fails = None
    assert lamp.trigger_configure() == SUCCESS
    assert (lamp.lit, lamp.problem) == ("blue", "")


def test_node_that_cannot_be_freed_after_an_error_is_finalised_and_says_so(
    lamp: Lamp, capfd: pytest.CaptureFixture[str]
) -> None:
    lamp.fails, lamp.fails_to_free = KeyError("bulb"), True
    lamp.trigger_configure()
    assert lamp.state_label == "finalized"
    assert "Cannot free after an error" in capfd.readouterr().err


@pytest.mark.parametrize("transitions", [(), ("configure",), ("configure", "activate")])
def test_close_frees_from_every_state_and_a_second_time(
    lamp: Lamp, transitions: tuple[str, ...]
) -> None:
    for transition in transitions:
        getattr(lamp, f"trigger_{transition}")()
    lamp.close()
    assert lamp.state_label == "finalized" and lamp.freed == 1
    lamp.close()
    assert lamp.freed == 2


@pytest.mark.parametrize(("autostart", "state"), [(True, "active"), (False, "unconfigured")])
def test_start_follows_autostart(autostart: bool, state: str) -> None:
    context = rclpy.Context()
    rclpy.init(context=context)
    override = Parameter("autostart", value=autostart)
    node = Lamp(context=context, parameter_overrides=[override])
    node.start()
    assert node.state_label == state
    node.close()
    node.destroy_node()
    context.try_shutdown()


def test_failing_transitions_are_logged_and_leave_the_node_usable(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """What a user can put right: one line, and the state stays. A bug: a traceback, and unconfigured."""

    class Clumsy(LifecycleNode):
        problem = ""
        error: Exception | None = None
        freed = 0

        @reported
        def on_configure(self, state: Any) -> Any:
            if self.error:
                raise self.error
            return SUCCESS

        def on_error(self, state: Any) -> Any:
            self.freed += 1
            return SUCCESS

    context = rclpy.Context()
    rclpy.init(context=context)
    node = Clumsy("clumsy", context=context)
    for error, outcome, freed in (
        (BundleError("no such thing"), FAILURE, 0),
        (KeyError("x"), ERROR, 1),
    ):
        node.error = error
        assert node.trigger_configure() == outcome
        assert node.freed == freed and node._state_machine.current_state[1] == "unconfigured"
        assert str(error) in node.problem
        logged = capfd.readouterr().err
        assert "Cannot configure:" in logged and ("Traceback" in logged) == (outcome == ERROR)
    node.error = None
    assert node.trigger_configure() == SUCCESS and node.problem == ""
    node.destroy_node()
    context.try_shutdown()


@pytest.mark.slow
def test_callback_that_fails_is_counted_and_the_node_lives_on(lamp: Lamp) -> None:
    """Over DDS: one message that a callback cannot stand, then one that it can."""
    heard: list[float] = []
    told: list[DiagnosticArray] = []

    def take(message: Float64) -> None:
        heard.append(1 / message.data)

    lamp.create_subscription(Float64, "dim", take, 10)
    lamp.create_timer(0.05, lambda: 1 / 0)
    client = rclpy.create_node("client", context=lamp.context)
    client.create_subscription(DiagnosticArray, "/diagnostics", told.append, 10)
    publisher = client.create_publisher(Float64, "dim", 10)
    executor = SingleThreadedExecutor(context=lamp.context)
    executor.add_node(lamp)
    executor.add_node(client)

    def spin() -> None:
        executor.spin_once(timeout_sec=0.05)

    try:
        wait_until(lambda: publisher.get_subscription_count(), each=spin)
        publisher.publish(Float64(data=0.0))
        publisher.publish(Float64(data=4.0))
        wait_until(lambda: heard, each=spin)
        assert heard == [0.25]
        wait_until(lambda: told, each=spin)
        told.clear()
        wait_until(lambda: told, each=spin)
        (status,) = told[-1].status
        values = {item.key: item.value for item in status.values}
        assert int(values["callback_errors"]) >= 2  # of the subscription and of the timer
        assert status.level == DiagnosticStatus.WARN
    finally:
        client.destroy_node()


def test_simulated_time_is_followed_from_the_start() -> None:
    """rclpy subscribes /clock in the constructor, before the node's own attributes are there."""
    from rosgraph_msgs.msg import Clock

    context = rclpy.Context()
    rclpy.init(context=context)
    values = {"use_sim_time": True, "autostart": False}
    overrides = [Parameter(name, value=value) for name, value in values.items()]
    node = Lamp(context=context, parameter_overrides=overrides)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    clock = node.create_publisher(Clock, "/clock", 1)
    message = Clock()
    message.clock.sec = 42
    wait_until(
        lambda: node.get_clock().now().nanoseconds == 42 * 10**9,
        each=lambda: (clock.publish(message), executor.spin_once(timeout_sec=0.1)),
    )
    executor.shutdown()
    node.destroy_node()
    context.try_shutdown()
