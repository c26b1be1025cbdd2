"""A bond as Nav2's lifecycle manager hears it: the other end is here, over DDS, by the rules of bondcpp."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("rclpy")
pytest.importorskip("bond.msg", reason="bond is not installed: make setup")

import rclpy
from bond.msg import Status
from lifecycle_msgs.msg import Transition
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from ros_helpers import Client, wait_until
from test_managed_node import Lamp

from robot_vision.ros.node.transitions import reported

pytestmark = [pytest.mark.ros, pytest.mark.slow]


_NUMBERS = itertools.count()


class BondedLamp(Lamp):
    """A lamp whose transitions are reported, as those of all nodes here are."""

    @reported
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return super().on_activate(state)

    @reported
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return super().on_deactivate(state)


class Manager:
    """The manager's end: waiting, alive while statuses come, dead after silence or a status that says so."""

    def __init__(self, client: Client, name: str, timeout_s: float) -> None:
        self.id, self.timeout_s = name, timeout_s
        self.sister = ""
        self.heard_at = 0.0
        self.said_dead = False
        self.periods: list[float] = []
        client.node.create_subscription(Status, "bond", self._hear, 100)

    def _hear(self, status: Status) -> None:
        if status.id != self.id:
            return
        self.sister = self.sister or status.instance_id
        if status.instance_id != self.sister:
            return
        now = time.monotonic()
        if self.heard_at and status.active:
            self.periods.append(now - self.heard_at)
        self.heard_at = now
        self.said_dead = self.said_dead or not status.active

    @property
    def formed(self) -> bool:
        return bool(self.sister)

    @property
    def broken(self) -> bool:
        silent = time.monotonic() - self.heard_at > self.timeout_s
        return self.formed and (self.said_dead or silent)


@pytest.fixture
def client() -> Iterator[Client]:
    made = Client()
    yield made
    made.close()


@pytest.fixture
def name() -> str:
    """Returns a node's name of the test's own: services of nodes of one name would answer for one another."""
    return f"bonded_lamp_{next(_NUMBERS)}"


@pytest.fixture
def spun(client: Client, name: str) -> Iterator[Any]:
    """Returns a function that makes a lamp and spins it in a thread, as a node's process does."""
    context = rclpy.Context()
    rclpy.init(context=context)
    executor = SingleThreadedExecutor(context=context)
    state = {"run": True, "hang": False}
    lamps: list[Lamp] = []

    def spin() -> None:
        while state["run"]:
            if state["hang"]:
                time.sleep(0.05)
            else:
                executor.spin_once(timeout_sec=0.05)

    thread = threading.Thread(target=spin, daemon=True)

    def make(autostart: bool) -> tuple[Lamp, dict[str, bool]]:
        lamp = BondedLamp(
            context=context,
            parameter_overrides=[Parameter("autostart", value=autostart)],
            cli_args=["--ros-args", "-r", f"__node:={name}"],
        )
        lamps.append(lamp)
        executor.add_node(lamp)
        thread.start()
        lamp.start()
        return lamp, state

    yield make
    state["run"] = False
    thread.join()
    executor.shutdown()
    for lamp in lamps:
        lamp.close()
        lamp.destroy_node()
    context.try_shutdown()


def activate(client: Client, name: str) -> None:
    assert client.change_state(f"/{name}", Transition.TRANSITION_CONFIGURE)
    assert client.change_state(f"/{name}", Transition.TRANSITION_ACTIVATE)


def test_a_manager_forms_a_bond_and_hears_of_its_end(client: Client, spun: Any, name: str) -> None:
    spun(autostart=False)
    manager = Manager(client, name, timeout_s=20.0)
    assert client.change_state(f"/{name}", Transition.TRANSITION_CONFIGURE)
    time.sleep(0.6)  # more than two periods, in which nothing may come
    assert not manager.formed, "a node that is not active has no bond"
    assert client.change_state(f"/{name}", Transition.TRANSITION_ACTIVATE)
    wait_until(lambda: manager.formed, 10)
    wait_until(lambda: len(manager.periods) >= 8, 30)
    assert not manager.broken
    assert client.change_state(f"/{name}", Transition.TRANSITION_DEACTIVATE)
    wait_until(lambda: manager.said_dead, 10)
    # The next activation is another instance, which a manager's new bond takes.
    second = Manager(client, name, timeout_s=20.0)
    assert client.change_state(f"/{name}", Transition.TRANSITION_ACTIVATE)
    wait_until(lambda: second.formed and second.sister != manager.sister, 10)
    wait_until(lambda: len(second.periods) >= 3, 20)
    assert not second.said_dead


def test_a_node_that_hangs_is_silent(client: Client, spun: Any, name: str) -> None:
    _, state = spun(autostart=False)
    activate(client, name)
    manager = Manager(client, name, timeout_s=1.0)
    wait_until(lambda: len(manager.periods) >= 3, 30)
    state["hang"] = True
    wait_until(lambda: manager.broken, 10)
    assert not manager.said_dead
    state["hang"] = False


def test_shutdown_ends_the_bond(client: Client, spun: Any, name: str) -> None:
    spun(autostart=False)
    activate(client, name)
    manager = Manager(client, name, timeout_s=20.0)
    wait_until(lambda: len(manager.periods) >= 2, 30)
    assert client.change_state(f"/{name}", Transition.TRANSITION_ACTIVE_SHUTDOWN)
    wait_until(lambda: manager.said_dead, 10)


def test_a_node_that_starts_itself_speaks_no_bond(client: Client, spun: Any, name: str) -> None:
    manager = Manager(client, name, timeout_s=20.0)
    lamp, _ = spun(autostart=True)
    wait_until(lambda: lamp.state_label == "active", 20)
    time.sleep(1.0)  # four periods
    assert not manager.formed
