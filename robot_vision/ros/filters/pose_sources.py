"""Whose pose a topic gives: the message does not say, but the nodes of this package know their base_frame."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from typing import Any

from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import GetParameters

# Together they are of nodes of this package; others may have a base_frame that means something else.
_NAMES = ("base_frame", "camera_to_base", "pose_covariance_scale")
_KINDS = (ParameterType.PARAMETER_STRING, ParameterType.PARAMETER_DOUBLE)
_ANSWERED_S = 1.0  # how long poses are held back while their publisher is asked


class PoseSources:
    """Asks the publishers of poses of which frame these are.

    Args:
        node: makes the clients.
        topics: of the poses, in full.
    """

    def __init__(self, node: Any, topics: Sequence[str]) -> None:
        self._node = node
        self._topics = topics
        self._clients: dict[str, Any] = {}  # by the full name of the publishing node
        self._frames: dict[str, str] = {}  # the same; empty for the camera's own
        self._of: dict[str, list[str]] = {}  # nodes that publish each topic
        self._waiting: dict[str, float] = {}  # nodes that were asked first at a steady time
        self._strangers: set[bytes] = set()  # publishers of nodes that have no such parameters

    def ask(self) -> None:
        """Asks again; call it now and then. What is known stays until the answers are there."""
        there: set[bytes] = set()
        for topic in self._topics:
            infos = self._node.get_publishers_info_by_topic(topic)
            gids = {
                f"{i.node_namespace.rstrip('/')}/{i.node_name}": bytes(i.endpoint_gid)
                for i in infos
            }
            self._of[topic] = sorted(gids)
            there.update(gids.values())
            for name, gid in gids.items():
                # Since Lyrical a node warns in its own log of each question for what it has not.
                if gid in self._strangers:
                    continue
                if name not in self._clients:
                    self._clients[name] = self._client(f"{name}/get_parameters")
                    self._waiting[name] = time.monotonic()
                client = self._clients[name]
                if client is not None and client.service_is_ready():
                    future = client.call_async(GetParameters.Request(names=_NAMES))
                    future.add_done_callback(functools.partial(self._take, name, gid))
        self._strangers &= there

    def _client(self, service: str) -> Any:
        try:
            return self._node.create_client(GetParameters, service)
        except Exception:  # its name is none, or the SROS 2 policy forbids to call it
            return None

    def _take(self, name: str, gid: bytes, future: Any) -> None:
        if future.cancelled() or future.exception() is not None:
            return
        values = future.result().values
        kinds = (values[0].type, values[-1].type) if len(values) == len(_NAMES) else ()
        self._waiting.pop(name, None)
        if kinds == _KINDS:
            self._frames[name] = values[0].string_value.lstrip("/")
        else:
            self._strangers.add(gid)

    def unknown(self, topic: str) -> bool:
        """Says whether it is worth waiting for an answer on the poses of a topic; asks who is new."""
        if topic not in self._of:
            self.ask()
        now = time.monotonic()
        return any(now - self._waiting.get(n, 0.0) < _ANSWERED_S for n in self._of.get(topic, ()))

    def wrong(self, topic: str, frame: str, camera: bool) -> str:
        """Returns why the poses of a topic are not those of a frame; empty if they are, or nobody knows.

        Args:
            topic: of the poses.
            frame: for which they are taken.
            camera: whether that may be the camera's, whose name nobody knows.
        """
        for name in self._of.get(topic, ()):
            said = self._frames.get(name)
            if said is None or said == frame or (camera and not said):
                continue
            whose = repr(said) if said else "the camera"
            return (
                f"it is the pose of {whose} (base_frame of {name}) and not of {frame!r}: set base_frame "
                f"there to {frame!r}, or name the frame of these poses in pose_frames"
            )
        return ""

    def destroy(self) -> None:
        """Ends the clients."""
        for client in filter(None, self._clients.values()):
            self._node.destroy_client(client)
        self._clients, self._of = {}, {}
