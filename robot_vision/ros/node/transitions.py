"""Lifecycle transitions that say why they failed; rclpy swallows what they raise."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from typing import Any

from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn

from robot_vision.errors import RobotVisionError

SUCCESS, FAILURE, ERROR = (
    TransitionCallbackReturn.SUCCESS,
    TransitionCallbackReturn.FAILURE,
    TransitionCallbackReturn.ERROR,
)
Transition = Callable[[Any, LifecycleState], TransitionCallbackReturn]


def reported(transition: Transition) -> Transition:
    """Logs what a transition raises and keeps it in the node's attribute `problem`.

    After one that succeeded, the node's `after_transition`, if it has one, is called with its name.

    What the user can put right is one line and a failed transition: the node stays in the state where it
    was. A bug is a traceback and an error: the node frees everything and becomes unconfigured.
    """

    @functools.wraps(transition)
    def wrapped(self: Any, state: LifecycleState) -> TransitionCallbackReturn:
        name = transition.__name__.removeprefix("on_")
        try:
            result = transition(self, state)
        except RobotVisionError as error:
            self.problem = str(error)
            self.get_logger().error(f"Cannot {name}: {error}")
            return FAILURE
        except Exception as error:
            self.problem = f"internal error in {name}: {type(error).__name__}: {error}"
            self.get_logger().fatal(f"Cannot {name}: {traceback.format_exc()}")
            return ERROR
        if result == SUCCESS:
            self.problem = ""
            getattr(self, "after_transition", lambda _: None)(name)
        return result

    return wrapped


def refuse_illegal_transitions(node: Any) -> None:
    """Makes a transition that the state does not allow a refused request.

    Up to Jazzy rclpy lets the error of the state machine escape from the service, which ends the executor
    and with it the process: `ros2 lifecycle set ... activate` on an active node would kill it.
    """
    service = getattr(node, "_service_change_state", None)
    if service is None:  # without the communication interface
        return
    original = service.callback

    @functools.wraps(original)
    def guarded(request: Any, response: Any) -> Any:
        try:
            return original(request, response)
        except Exception as error:
            # The state machine raises its own exception type, which rclpy does not export.
            label = node._state_machine.current_state[1]
            node.get_logger().error(
                f"Transition {request.transition.label or request.transition.id} refused in state "
                f"{label}: {error}"
            )
            response.success = False
            return response

    service.callback = guarded
