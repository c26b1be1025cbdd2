"""`robot-vision map update`: counts what a later drive recognises, and replaces what it does not."""

from __future__ import annotations

import argparse
import base64
import math
import sys
from collections import Counter
from datetime import datetime, timezone
from html import escape
from itertools import groupby
from pathlib import Path

import numpy as np

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.bundle.installed import find_model
from robot_vision.charts.page import page
from robot_vision.charts.tables import html_table
from robot_vision.cli.arguments import progress
from robot_vision.cli.map.build import ViewStructure, recorded_views, refuse_frame
from robot_vision.engines import create_engine
from robot_vision.errors import ConfigError
from robot_vision.files.whole import write_whole
from robot_vision.geometry.rigid import matrix_from_xyzw
from robot_vision.pipeline import Pipeline
from robot_vision.places.map.base import PlaceMap
from robot_vision.places.map.evidence import Replaced, kept_evidence
from robot_vision.places.map.keyframe import stamped
from robot_vision.places.map.opening import open_map
from robot_vision.places.map.updating import (
    Change,
    Seen,
    Update,
    UpdatePolicy,
    apply_update,
    described,
    plan_update,
    with_structure,
)
from robot_vision.places.verification.builder import StructureBuilder
from robot_vision.places.verification.features import FeatureExtractor
from robot_vision.places.verification.options import VerificationOptions
from robot_vision.places.verification.structure import refuse_other_features
from robot_vision.text.counts import counted


def update(args: argparse.Namespace) -> int:
    """Updates a map with one or several drives, in their order."""
    bundle = ModelBundle.load(find_model(args.model))
    policy = UpdatePolicy(
        args.distance, args.angle, args.place_radius, args.place_heading, args.capacity
    )
    if not 0 <= args.thumbnail <= 1024:
        raise ConfigError(f"--thumbnail is {args.thumbnail}: use 0 (none) to 1024 pixels")
    views, frame_id, notes = recorded_views(args)
    drives = [list(g) for _, g in groupby(views, key=lambda view: (view.source, view.camera))]
    if args.dry_run and len(drives) > 1:
        raise ConfigError(
            f"{args.source} has {len(drives)} recordings, and what one changes counts for the next: "
            "--dry-run takes one recording"
        )
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    unreadable: Counter[str] = Counter()
    with open_map(args.map, "read" if args.dry_run else "write", bundle=bundle) as places:
        refuse_frame(args.source, frame_id, places)
        verification = None
        if len(places.structure_ids()):
            verification = VerificationOptions.of_features(args.features)
            refuse_other_features(places, FeatureExtractor(verification).kind)
        elif args.features:
            raise ConfigError(f"{args.map} has no local features: --features has no effect")
        with (
            Pipeline(bundle, create_engine(bundle, args.engine, args.device)) as pipeline,
            progress() as bar,
        ):
            task = bar.add_task("looking", total=len(views))
            for drive in drives:
                seen = list(
                    described(
                        drive,
                        pipeline,
                        policy,
                        args.thumbnail,
                        lambda n: bar.advance(task, n),
                        unreadable,
                    )
                )
                found = plan_update(places, seen, policy)
                if verification is not None and found.added and not args.dry_run:
                    found = _structured(found, seen, verification)
                before = len(places)
                ids = [] if args.dry_run else apply_update(places, found)
                _say(places, drive[0].source, found, ids, before, args.dry_run)
        if args.report:
            records = [change.record for change in found.changes] if args.dry_run else []
            records += [r for kept in kept_evidence(places).values() for r in kept.replaced]
            _write_report(Path(args.report).expanduser(), places, records)
    for reason, count in unreadable.most_common():
        print(f"warning: {counted(count, 'image')} cannot be read ({reason})", file=sys.stderr)
    return 1 if unreadable else 0


def _structured(found: Update, seen: list[Seen], verification: VerificationOptions) -> Update:
    """Returns an update whose keyframes can be verified, as the map's are."""
    if any(s.view.camera_matrix is None and s.view.intrinsics is None for s in seen):
        print(
            "note: the new keyframes have no local features, and a node with verify:=true accepts no place "
            "by them: the recording does not say what its camera's matrix is (--option "
            "camera_matrix=fx,fy,cx,cy)",
            file=sys.stderr,
        )
        return found
    builder = StructureBuilder(verification)
    return with_structure(found, seen, ViewStructure(builder), builder.options.max_baseline_m)


def _say(
    places: PlaceMap, source: str, found: Update, ids: list[int], before: int, dry_run: bool
) -> None:
    after = before - len(found.changes) + len(found.added)
    words = [
        f"{places.info.uri}: {found.recognised} of {counted(found.placed, 'image')} of {source!r} that show "
        f"its places are recognised, of {found.views} in all",
        f"{counted(len(found.changes), 'keyframe')} {'would go' if dry_run else 'gone'}",
        f"{len(found.doubted)} in doubt",
        f"{len(found.added)} {'would be added' if dry_run else 'added'} ({found.new_ground} on new ground)",
        f"{after} in the map (before: {before})",
    ]
    if found.full:
        words.append(
            f"{counted(found.full, 'image')} look new where there are keyframes enough (--capacity)"
        )
    print("; ".join(words))
    if found.elsewhere:
        print(
            f"warning: {counted(found.elsewhere, 'image')} of {source!r} on new ground look like places of "
            "the map that are elsewhere, as much as recognised images like theirs: check the drive's poses "
            "with robot-vision map evaluate",
            file=sys.stderr,
        )
    for change in found.changes:
        print("changed: " + _sentence(change, ids))


def _sentence(change: Change, ids: list[int]) -> str:
    r = change.record
    x, y, z = r.pose[:3]
    if change.shown_by is not None:
        now = f"keyframe {change.shown_by} shows what is there now"
    elif change.shown_by_new is None:
        now = "no keyframe shows what is there now"
    else:
        new = f"keyframe {ids[change.shown_by_new]}" if ids else "a new keyframe"
        now = f"{new} shows what is there now"
    return (
        f"keyframe {r.keyframe_id} of {r.source!r} at ({x:.2f}, {y:.2f}, {z:.2f}) m, facing {_heading(r)}: "
        f"not recognised since {_when(r.since_ns)} ({_evidence(r)}), similarity {_then(r)} then, "
        f"{r.now:.2f} now; {now}"
    )


def _evidence(r: Replaced) -> str:
    failed = [s for s in r.sessions if s.stamp_ns >= r.since_ns]
    matched, seen = sum(s.matched for s in failed), sum(s.seen for s in failed)
    return f"{counted(len(failed), 'drive')}, {matched} of {counted(seen, 'image')}"


def _then(r: Replaced) -> str:
    return "-" if r.then is None else f"{r.then:.2f}"


def _heading(r: Replaced) -> str:
    x, y, z = matrix_from_xyzw(np.array(r.pose[3:]))[:3, 2]
    if math.hypot(x, y) < 0.3:
        return "up" if z > 0 else "down"
    return f"{math.degrees(math.atan2(y, x)):.0f} deg"


def _when(stamp_ns: int) -> str:
    if not stamped(stamp_ns):
        return "an image without stamp"
    at = datetime.fromtimestamp(stamp_ns / 1e9, timezone.utc)
    return at.strftime("%Y-%m-%d %H:%M:%S UTC")


def _write_report(path: Path, places: PlaceMap, records: list[Replaced]) -> None:
    """Writes what was there and what is there now, the newest change first."""
    records = sorted(records, key=lambda r: (-r.replaced_ns, r.keyframe_id))
    header = ("keyframe", "where", "facing", "was there", "is there now", "not recognised since",
              "replaced", "evidence", "similarity then", "now")  # fmt: skip
    rows = [
        [
            str(r.keyframe_id),
            f"({r.pose[0]:.2f}, {r.pose[1]:.2f}, {r.pose[2]:.2f}) m",
            _heading(r),
            _picture(r.thumbnail),
            _picture(r.shown),
            _when(r.since_ns),
            _when(r.replaced_ns),
            _evidence(r),
            _then(r),
            f"{r.now:.2f}",
        ]
        for r in records
    ]
    title = f"Changed places of {places.info.uri}"
    table = html_table(header, rows) if rows else "<p>Nothing was replaced.</p>"
    write_whole(path, page(title, f"<h1>{escape(title)}</h1>{table}"))
    print(f"{path}: {counted(len(rows), 'changed place')}")


def _picture(jpeg: bytes | None) -> str:
    if jpeg is None:
        return "no picture"
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}">'
