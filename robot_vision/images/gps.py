"""Where a picture was taken: the GPS that phones store with the pixels (EXIF 2.3, section 4.6.6)."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

from robot_vision.images.orientation import exif_at

_GPS = 0x8825
_ASCII, _RATIONAL = 2, 5
# The tag before each says its sign or its kind
_LATITUDE, _LONGITUDE, _ALTITUDE, _DIRECTION = (2, 4, 6, 17)
_BELOW = (b"\1", b"\3")  # the reference, of which EXIF 3.0 has two


@dataclass(frozen=True)
class GpsTag:
    """What a picture says of its place.

    Attributes:
        lat_deg: north of the equator, WGS 84.
        lon_deg: east of Greenwich.
        altitude_m: above the sea; None where it is not said.
        heading_deg: of the camera's direction, clockwise from north; None where it is not said, or only by a
            compass, whose north is another.
    """

    lat_deg: float
    lon_deg: float
    altitude_m: float | None
    heading_deg: float | None


def gps_of(data: Any) -> GpsTag | None:
    """Returns the place that a file says; None where it says none.

    Args:
        data: bytes of a JPEG, PNG, WebP or TIFF file.

    Raises:
        ValueError: what it says is no place.
    """
    try:
        tags = _tags(data)
    except (struct.error, IndexError) as error:
        raise ValueError("its EXIF is cut off") from error
    if _LATITUDE not in tags or _LONGITUDE not in tags:
        return None
    lat, lon = _degrees(tags, _LATITUDE, b"NS", 90.0), _degrees(tags, _LONGITUDE, b"EW", 180.0)
    if lat == 0 and lon == 0:
        raise ValueError("its latitude and longitude are both 0: the receiver had no position")
    altitude, heading = _number(tags, _ALTITUDE), _number(tags, _DIRECTION)
    if altitude is not None and tags.get(_ALTITUDE - 1, b"")[:1] in _BELOW:
        altitude = -altitude
    if tags.get(_DIRECTION - 1, b"T")[:1] != b"T" or not 0 <= (heading or 0) <= 360:
        heading = None
    return GpsTag(lat, lon, altitude, heading)


def _degrees(tags: dict[int, Any], tag: int, signs: bytes, most: float) -> float:
    """Returns degrees, minutes and seconds as one number; south and west are negative."""
    sign, parts = tags.get(tag - 1, b"")[:1].upper(), tags[tag]
    if sign not in (signs[:1], signs[1:]) or not isinstance(parts, list) or not parts:
        raise ValueError("its latitude or longitude has no N, S, E or W, or no degrees")
    value = float(sum(part / 60**i for i, part in enumerate(parts[:3])))
    if not 0 <= value <= most:  # NaN compares false
        raise ValueError(f"its latitude or longitude is {value:g} degrees")
    if not all(part <= 60 for part in parts[1:3]):  # 60 by rounding
        raise ValueError("its latitude or longitude has more than 60 minutes or seconds")
    return -value if sign == signs[1:] else value


def _number(tags: dict[int, Any], tag: int) -> float | None:
    value = tags.get(tag)
    return value[0] if isinstance(value, list) and value and math.isfinite(value[0]) else None


def _tags(data: Any) -> dict[int, Any]:
    """Returns the tags of the GPS directory: bytes, or a list of rationals (NaN for those over 0)."""
    start = exif_at(data)
    order = None if start is None else {b"II": "<", b"MM": ">"}.get(bytes(data[start : start + 2]))
    if start is None or order is None:
        return {}
    place = next(
        (
            struct.unpack_from(order + "I", data, at + 8)[0]
            for tag, at in _entries(data, start, order, start + 4)
            if tag == _GPS
        ),
        None,
    )
    if place is None:
        return {}
    found: dict[int, Any] = {}
    for tag, at in _entries(data, start, order, None, start + place):
        kind, count = struct.unpack_from(order + "HI", data, at + 2)
        if kind == _RATIONAL and count <= 3:
            where = start + struct.unpack_from(order + "I", data, at + 8)[0]
            pairs = struct.unpack_from(f"{order}{2 * count}I", data, where)
            found[tag] = [
                over / under if under else math.nan
                for over, under in zip(pairs[::2], pairs[1::2], strict=True)
            ]
        elif count <= 4:  # letters and bytes lie in the entry itself
            found[tag] = bytes(data[at + 8 : at + 12])
    return found


def _entries(
    data: Any, start: int, order: str, pointer: int | None, at: int = 0
) -> list[tuple[int, int]]:
    """Returns the tag and the place of each entry of a directory, at a place or where a pointer says."""
    if pointer is not None:
        at = start + struct.unpack_from(order + "I", data, pointer)[0]
    count = struct.unpack_from(order + "H", data, at)[0]
    places = [at + 2 + 12 * i for i in range(count)]
    return [(struct.unpack_from(order + "H", data, place)[0], place) for place in places]
