"""`robot-vision map info`, `check`, `export` and `show`: look at a map."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.table import Table

from robot_vision.errors import ConfigError
from robot_vision.files.whole import draft_folder, write_whole
from robot_vision.places.map.base import PlaceMap
from robot_vision.places.map.evidence import kept_evidence
from robot_vision.places.map.exporting import SUFFIXES, exported
from robot_vision.places.map.keyframe import stamped
from robot_vision.places.map.opening import open_map
from robot_vision.places.map.picture import draw_map
from robot_vision.places.verification.structure import kept_kind
from robot_vision.text.address import is_server
from robot_vision.text.console import plain_console
from robot_vision.text.counts import counted


def info(args: argparse.Namespace) -> int:
    """Prints what a map holds."""
    with open_map(args.map, "read") as places:
        data = _data(places, args.map)
    if args.json:
        print(json.dumps(data, indent=2, allow_nan=False))
        return 0
    table = Table(title=f"Map {data['uri']}", show_header=False, title_justify="left")
    created = datetime.fromtimestamp(data["created_ns"] / 1e9, timezone.utc)
    table.add_row("model", f"{data['bundle_name']} ({data['bundle_sha256']})")
    table.add_row("descriptors", f"{data['dimension']} numbers of {data['descriptor_dtype']}")
    table.add_row("frame", data["frame_id"])
    table.add_row("made", f"{created:%Y-%m-%d %H:%M} UTC, version {data['schema_version']}")
    table.add_row("keyframes", str(data["keyframes"]))
    for source, count in list(data["sources"].items())[:12]:
        table.add_row("", f"{count} of {source}")
    table.add_row("cameras", ", ".join(data["cameras"]))
    if data["keyframes"]:
        extent = " x ".join(f"{value:.2f}" for value in data["extent_m"])
        table.add_row("extent", f"{extent} m (x, y, z)")
    if data["without_stamps"]:
        table.add_row("without stamps", f"{data['without_stamps']}: no speed is learnt from them")
    kind = f", features of {data['features']}" if data["features"] else ""
    table.add_row("with structure", f"{data['with_structure']}{kind}")
    if data["with_evidence"]:
        table.add_row("with evidence", f"{data['with_evidence']}, of later drives (map update)")
        table.add_row("replaced, remembered", str(data["replaced"]))
    if data["bytes"] is not None:
        table.add_row("on disk", f"{data['bytes'] / 1e6:.1f} MB")
    plain_console().print(table)
    return 0


def _data(places: PlaceMap, uri: str) -> dict[str, Any]:
    poses = places.poses()
    times = poses.stamps_ns[stamped(poses.stamps_ns)]
    low_high = (
        (poses.positions.min(axis=0), poses.positions.max(axis=0)) if len(poses.ids) else None
    )
    size = None
    if not is_server(uri):
        files = [Path(f"{Path(uri).expanduser()}{end}") for end in ("", "-wal", ".index")]
        size = sum(file.stat().st_size for file in files if file.is_file())
    evidence = kept_evidence(places)
    return {
        **asdict(places.info),
        "keyframes": len(poses.ids),
        "sources": dict(Counter(poses.sources).most_common()),
        "cameras": sorted(set(poses.cameras)),
        "with_structure": len(places.structure_ids()),
        "features": kept_kind(places) or None,
        "with_evidence": len(evidence),
        "replaced": sum(len(kept.replaced) for kept in evidence.values()),
        "low_m": None if low_high is None else low_high[0].tolist(),
        "high_m": None if low_high is None else low_high[1].tolist(),
        "extent_m": None if low_high is None else (low_high[1] - low_high[0]).tolist(),
        "first_ns": int(times.min()) if len(times) else None,
        "last_ns": int(times.max()) if len(times) else None,
        "without_stamps": len(poses.ids) - len(times),
        "bytes": size,
    }


def check(args: argparse.Namespace) -> int:
    """Reads everything; a damaged map is an error."""
    with open_map(args.map, "read") as places:
        places.check()
        kept_evidence(places)
        print(f"{places.info.uri}: {counted(len(places), 'keyframe')}, all as they were written")
    return 0


def export(args: argparse.Namespace) -> int:
    """Writes the keyframes as text, or as a COLMAP model."""
    if args.format == "colmap":
        return _export_colmap(args)
    form = args.format or SUFFIXES.get(Path(args.output).suffix.lower(), "csv")
    with open_map(args.map, "read") as places:
        text, count = exported(places, form), len(places)
    if args.output == "-":
        sys.stdout.write(text)
        return 0
    _written(Path(args.output).expanduser(), text.encode())
    print(f"{args.output}: {counted(count, 'keyframe')} as {form}")
    return 0


def _export_colmap(args: argparse.Namespace) -> int:
    folder = Path(args.output).expanduser()
    if args.output == "-" or os.path.lexists(folder):
        raise ConfigError(f"--output {args.output}: a COLMAP model needs the name of a new folder")
    from robot_vision.places.verification.colmap import colmap_model

    with open_map(args.map, "read") as places:
        files, count, left = colmap_model(places)
    if left:
        print(f"note: {counted(left, 'keyframe')} without structure left out", file=sys.stderr)
    try:
        with draft_folder(folder) as part:
            for name, text in files.items():
                (part / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error}") from error
    print(f"{folder}: {counted(count, 'keyframe')} as a COLMAP model")
    return 0


def show(args: argparse.Namespace) -> int:
    """Draws the map."""
    if not 200 <= args.size <= 10_000:
        raise ConfigError(f"--size is {args.size}: use 200 to 10000 pixels")
    if not (0 < args.sight <= 1000 and 0 < args.field <= 360):
        raise ConfigError(
            f"--sight is {args.sight:g} m and --field {args.field:g} deg: use up to 1000 and 360"
        )
    if args.output is None and is_server(args.map):
        raise ConfigError("A map on a server needs --output PNG")
    output = Path(args.output or f"{args.map}.png").expanduser()
    if output.suffix.lower() != ".png":
        raise ConfigError(f"--output {output} must end in .png")
    with open_map(args.map, "read") as places:
        picture = draw_map(places, args.size, args.sight, args.field)
        count = len(places)
    done, data = cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))
    assert done
    _written(output, data.tobytes())
    print(f"{output}: {counted(count, 'keyframe')} from above")
    return 0


def _written(path: Path, data: bytes) -> None:
    """Writes a file that is whole or not there."""
    try:
        write_whole(path, data)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error}") from error
