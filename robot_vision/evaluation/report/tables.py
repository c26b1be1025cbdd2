"""Files for other programs: a table of all frames, and trajectories that evo reads."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.head import Head
from robot_vision.contract.rows import Scores
from robot_vision.messages.stamps import SECOND_NS

_AXES: dict[int, Iterable[Any]] = {3: "xyz", 4: "xyzw", 6: ("x", "y", "z", "rx", "ry", "rz")}


def write_table(folder: Path, scores: Scores) -> Path:
    """Writes a row a frame as `predictions.parquet` where pyarrow is installed, else as `predictions.csv`.

    Columns that are empty everywhere are left out. Returns the file's path.
    """
    table = _table(scores)
    for name in ("predictions.csv", "predictions.parquet"):
        (folder / name).unlink(missing_ok=True)
    if importlib.util.find_spec("pyarrow") is not None:
        arrow, parquet = (
            importlib.import_module("pyarrow"),
            importlib.import_module("pyarrow.parquet"),
        )
        path = folder / "predictions.parquet"
        parquet.write_table(arrow.table(table), path)
        return path
    path = folder / "predictions.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(table)
        writer.writerows(zip(*(_text(c) for c in table.values()), strict=True))
    return path


def _table(scores: Scores) -> dict[str, Any]:
    names = [
        r["name"]
        for r, (a, b) in zip(scores.recordings, scores.bounds, strict=True)
        for _ in range(a, b)
    ]
    table: dict[str, Any] = {"recording": names}
    each = {rows.head.name: rows for rows in scores.each()}
    for name, about in scores.table.items():
        column, width = scores[name], about.width
        if name == "stamps_ns":
            table["stamp_ns"] = column
        elif about.label:
            if (column != -1).any():
                rows = each.get(name.rpartition(".")[0])
                labels = rows.labels if rows else scores.labels
                table[name] = [_label(labels, int(i)) for i in column]
        elif (column == -1).all() if about.dtype == "<i8" else np.isnan(column).all():
            continue
        elif width == 1:
            table[name] = column
        else:
            for i, axis in enumerate(about.names or _AXES.get(width, range(width))):
                table[f"{name}_{axis}"] = np.ascontiguousarray(column[:, i])
    return table


def _label(labels: Sequence[str], index: int) -> str:
    if index >= 0:
        return labels[index]
    return "" if index == -1 else "(not a class of the model)"


def _text(column: Any) -> list[str]:
    if isinstance(column, np.ndarray) and column.dtype.kind == "f":
        return ["" if np.isnan(v) else repr(float(v)) for v in column]
    return [str(v) for v in column]


def write_tum(
    path: Path, stamps_ns: NDArray[np.int64], positions: NDArray[Any], xyzw: NDArray[Any]
) -> bool:
    """Writes a trajectory as `stamp x y z qx qy qz qw`; rows that are not finite are left out.

    Returns whether there was any row; without one no file is written.
    """
    fine = np.isfinite(positions).all(1) & np.isfinite(xyzw).all(1)
    if not fine.any():
        path.unlink(missing_ok=True)
        return False
    with path.open("w", encoding="utf-8") as file:
        file.write("# stamp_s x y z qx qy qz qw (T_map_camera, m)\n")
        for stamp, p, q in zip(stamps_ns[fine], positions[fine], xyzw[fine], strict=True):
            seconds, nanoseconds = divmod(int(stamp), SECOND_NS)
            numbers = " ".join(f"{v:.9f}" for v in (*p, *q))
            file.write(f"{seconds}.{nanoseconds:09d} {numbers}\n")
    return True


def file_stems(names: Sequence[str]) -> list[str]:
    """Returns a file name for each recording, all different, also where letter case does not count."""
    stems: list[str] = []
    for number, name in enumerate(names):
        stem = "".join(c if c.isalnum() or c in "-_." else "_" for c in name).strip(".")
        taken = {other.casefold() for other in stems}
        if not stem or stem.casefold() in taken:
            stem = f"{stem or 'recording'}_{number}"
        stems.append(stem)
    return stems


def trajectory_kind(head: Head[Any, Any]) -> str:
    """Returns the kind of trajectory that a head estimates, part of its file's name; empty for none.

    It is `estimate`, after what the names of the head's columns begin with.
    """
    columns = head.judge().trajectory if "judge" in head.sides else None
    return head.key(os.path.commonprefix(columns) + "estimate") if columns else ""


def write_trajectories(folder: Path, scores: Scores) -> list[Path]:
    """Writes `<recording>.truth.tum` and a file for each head that estimates poses; returns those written."""
    written = []
    stems = file_stems([recording["name"] for recording in scores.recordings])
    kinds = {"truth": ("true_position", "true_xyzw")}
    for rows in scores.each():
        kind, columns = trajectory_kind(rows.head), rows.head.judge().trajectory
        if columns:
            kinds[kind] = rows.head.key(columns[0]), rows.head.key(columns[1])
    for stem, (a, b) in zip(stems, scores.bounds, strict=True):
        for kind, (position, xyzw) in sorted(kinds.items()):
            path = folder / f"{stem}.{kind}.tum"
            if write_tum(path, scores["stamps_ns"][a:b], scores[position][a:b], scores[xyzw][a:b]):
                written.append(path)
    return written
