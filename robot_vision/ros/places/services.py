"""The services of the place node. One that takes long lets every other callback go on meanwhile."""

from __future__ import annotations

import functools
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from rclpy.task import Future
from std_srvs.srv import Trigger

from robot_vision.errors import ConfigError, RobotVisionError

Outcome = Callable[[bool, str], None]
Answer = Callable[[Trigger.Request, Trigger.Response], Any]


class Services:
    """Answers `~/relocalise`, which waits for a match, and services that do one piece of work each.

    Args:
        node: makes the services.
        relocalise: begins it; calls what it is given with success and a text, once and from any thread.
            Raises ConfigError if the node cannot.
        works: what each other service does, by its name; returns the text of the answer, and what it
            raises is the text of a failure. It runs in a thread of its own.
    """

    def __init__(
        self,
        node: Node,
        relocalise: Callable[[Outcome], None],
        works: Mapping[str, Callable[[], str]],
    ) -> None:
        self._node = node
        self._relocalise = relocalise
        # A service that waits holds its group: descriptors and timers have to go on meanwhile.
        group = ReentrantCallbackGroup()
        answers: dict[str, Answer] = {"relocalise": self._on_relocalise}
        for name, work in works.items():
            answers[name] = functools.partial(self._in_thread, work)
        self._services = [
            node.create_service(Trigger, f"~/{name}", answer, callback_group=group)
            for name, answer in answers.items()
        ]

    def destroy(self) -> None:
        """Ends the services."""
        for service in self._services:
            self._node.destroy_service(service)
        self._services = []

    async def _on_relocalise(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        future: Future = Future(executor=self._node.executor)
        try:
            self._relocalise(lambda success, text: future.set_result((success, text)))
        except ConfigError as error:
            return _answer(response, False, str(error))
        success, text = await future  # type: ignore[misc]
        self._node.get_logger().info(f"Relocalise: {text}")
        return _answer(response, success, text)

    async def _in_thread(
        self, work: Callable[[], str], request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        future: Future = Future(executor=self._node.executor)

        def run() -> None:
            try:
                future.set_result((True, work()))
            except RobotVisionError as error:
                future.set_result((False, str(error)))
            except Exception as error:
                self._node.get_logger().error(
                    f"Internal error, please report it: {traceback.format_exc()}"
                )
                future.set_result((False, f"internal error: {type(error).__name__}: {error}"))

        threading.Thread(target=run, name="place_service", daemon=True).start()
        success, text = await future  # type: ignore[misc]
        if not success:
            self._node.get_logger().warning(text)
        return _answer(response, success, text)


def _answer(response: Trigger.Response, success: bool, text: str) -> Trigger.Response:
    response.success, response.message = success, text
    return response
