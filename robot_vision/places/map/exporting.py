"""A map's keyframes as CSV, as a TUM trajectory, and as GeoJSON in metres."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter

from robot_vision.errors import ConfigError, unknown
from robot_vision.geometry import rigid as geometry
from robot_vision.messages.stamps import SECOND_NS
from robot_vision.places.map.base import PlaceMap
from robot_vision.places.map.keyframe import number_of, stamped
from robot_vision.text.counts import agreeing, counted

FORMATS = ("csv", "tum", "geojson")
SUFFIXES = {".csv": "csv", ".tum": "tum", ".txt": "tum", ".geojson": "geojson", ".json": "geojson"}


def exported(places: PlaceMap, form: str) -> str:
    """Returns the keyframes as text.

    Keyframes of images without stamps have none in csv (an empty field) and geojson (null); in tum, which
    needs one, they have their number, and a comment says so.

    csv has a heading and all numbers, and which keyframes have structure; tum has one line
    `stamp x y z qx qy qz qw` for each, in seconds and in the order of stamps, as evo and others read it;
    geojson has a point for each, in metres of the map frame and not in degrees.

    Raises:
        ConfigError: an unknown format.
    """
    if form not in FORMATS:
        raise ConfigError(unknown("export format", form, FORMATS))
    return {"csv": _csv, "tum": _tum, "geojson": _geojson}[form](places)


def _csv(places: PlaceMap) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["id", "stamp_ns", "camera", "source", "x", "y", "z", "qx", "qy", "qz", "qw", "structure"]
    )
    structured = set(places.structure_ids().tolist())
    poses = places.poses()
    for row in zip(
        poses.ids.tolist(), poses.stamps_ns.tolist(), poses.cameras, poses.sources,
        poses.positions.tolist(), poses.quaternions_xyzw.tolist(), strict=True,
    ):  # fmt: skip
        number, stamp_ns, camera, source, position, quaternion = row
        stamp_ns = stamp_ns if stamped(stamp_ns) else ""
        numbers = [repr(value) for value in (*position, *quaternion)]
        writer.writerow([number, stamp_ns, camera, source, *numbers, int(number in structured)])
    return text.getvalue()


def _tum(places: PlaceMap) -> str:
    poses = places.poses()
    lines = ["# stamp x y z qx qy qz qw"]
    times = stamped(poses.stamps_ns)
    without = Counter(s for s, is_time in zip(poses.sources, times, strict=True) if not is_time)
    for source, count in without.items():
        lines.append(
            f"# {counted(count, 'keyframe')} of {source!r} "
            f"{agreeing(count, 'have no stamps: they are')} numbered"
        )
    for i in poses.stamps_ns.argsort(kind="stable"):
        stamp = int(poses.stamps_ns[i])
        seconds, rest = divmod(stamp, SECOND_NS) if times[i] else (number_of(stamp), 0)
        numbers = (*poses.positions[i].tolist(), *poses.quaternions_xyzw[i].tolist())
        lines.append(f"{seconds}.{rest:09d} " + " ".join(f"{value:.9f}" for value in numbers))
    return "\n".join(lines) + "\n"


def _geojson(places: PlaceMap) -> str:
    info, poses = places.info, places.poses()
    rotations = geometry.matrix_from_xyzw(poses.quaternions_xyzw.reshape(-1, 4))
    features = [
        {
            "type": "Feature",
            "id": int(poses.ids[i]),
            "geometry": {"type": "Point", "coordinates": poses.positions[i].tolist()},
            "properties": {
                "stamp_ns": int(poses.stamps_ns[i]) if stamped(poses.stamps_ns[i]) else None,
                "camera": poses.cameras[i],
                "source": poses.sources[i],
                "quaternion_xyzw": poses.quaternions_xyzw[i].tolist(),
                "looks_along": rotations[i][:, 2].round(6).tolist(),
            },
        }
        for i in range(len(poses.ids))
    ]
    frame = {"frame_id": info.frame_id, "unit": "metre", "model": info.bundle_name}
    content = {"type": "FeatureCollection", "properties": frame, "features": features}
    return json.dumps(content, allow_nan=False) + "\n"
