"""Messages of rclpy that several nodes write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from std_msgs.msg import Header

from robot_vision.messages.making import pose_writer, rclpy_maker, set_header, transform_writer

pose_message = pose_writer(rclpy_maker)
transform_message = transform_writer(rclpy_maker)

LEVELS: Mapping[int, Any] = {
    0: DiagnosticStatus.OK,
    1: DiagnosticStatus.WARN,
    2: DiagnosticStatus.ERROR,
}


def header_message(header: Any) -> Header:
    """Returns a `std_msgs/Header` with the stamp and frame of a header-like object."""
    message = Header()
    set_header(message, header)
    return message


def status_message(
    level: int, name: str, text: str, hardware_id: str, values: Mapping[str, object]
) -> DiagnosticStatus:
    """Returns one entry of `/diagnostics`; level 0 is OK, 1 WARN, 2 ERROR."""
    return DiagnosticStatus(
        level=LEVELS[level],
        name=name,
        message=text,
        hardware_id=hardware_id,
        values=[KeyValue(key=key, value=_text(value)) for key, value in values.items()],
    )


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
