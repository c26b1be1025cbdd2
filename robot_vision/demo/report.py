"""What the demo leaves behind: its answers as JSON lines, and a picture of the drive."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_vision.demo.picture import FloorPlan, PictureShot, compose
from robot_vision.demo.recorded import DriveTruth
from robot_vision.demo.scoring import FrameAnswer, Judged, Score
from robot_vision.errors import ConfigError
from robot_vision.heads.depth.drawing import colours, span
from robot_vision.heads.segmentation.drawing import palette
from robot_vision.images.decode import to_rgb
from robot_vision.recordings import open_source
from robot_vision.simulation.world.world import World

if TYPE_CHECKING:
    from robot_vision.demo.scoring import Drive
    from robot_vision.pipeline import Pipeline


_CORNERS = {
    "segmentation": "the class of each pixel by colour",
    "depth": "its distance (yellow near, dark far)",
}


def write_answer(file: IO[str], answer: FrameAnswer, judged: Judged) -> None:
    """Writes one answer with the truth as a line of JSON."""
    assert answer.orientation_xyzw is not None and answer.covariance is not None
    line = {
        **vars(judged),
        "stamp_ns": answer.stamp_ns,
        "orientation_xyzw": answer.orientation_xyzw.tolist(),
        "variances": np.diagonal(answer.covariance).tolist(),
    }
    print(json.dumps(line), file=file)


def draw(
    path: Path,
    world: World,
    drive: Drive,
    score: Score,
    lines: Sequence[str],
    title: str,
    pipeline: Pipeline,
) -> None:
    """Draws both paths on the plan, and next to it one frame of each room and that of the worst pose.

    In the corner of a frame is what the model says of its pixels, if it does.
    """
    truth = score.truth
    judged = {j.frame: j for j in score.judged}
    chosen = _chosen(judged, truth)
    images: dict[int, NDArray[np.uint8]] = {}
    with open_source(str(drive.bag)) as source:
        for index, frame in enumerate(source):
            if index in chosen:
                images[index] = to_rgb(frame.message)
    shots = []
    for index in chosen:
        j = judged[index]
        right = j.label == j.true_label
        said = f"{j.label} {j.probability:.2f}" + ("" if right else f" (is {j.true_label})")
        worst = "worst pose: " if index == chosen[-1] else ""
        detail = f"{worst}{j.error_m:.2f} m, {j.error_deg:.0f} deg off; like place {j.place}"
        shown = _with_maps(images[index], pipeline)
        shots.append(PictureShot(shown, said, detail, right, truth.positions[index]))
    plan = FloorPlan(world)
    jump = drive.kidnapped_at or len(truth)
    plan.path(truth.positions[:jump])
    if jump < len(truth):
        plan.path(truth.positions[jump:])
    frames = sorted(judged)
    plan.estimates(truth.positions[frames], np.array([judged[f].position for f in frames]))
    if jump < len(truth):  # on top of the estimates, which would hide its name
        plan.jump(truth.positions[jump - 1], truth.positions[jump])
    plan.scale_bar()
    corner = [word for name, word in _CORNERS.items() if name in pipeline.bundle.spec.heads]
    if corner:
        lines = [*lines, f"in the corner of each frame: {' and '.join(corner)}"]
    page = compose(plan, shots, title, lines)
    bgr = cv2.cvtColor(page, cv2.COLOR_RGB2BGR)
    if not cv2.imwrite(str(path), bgr, [cv2.IMWRITE_PNG_COMPRESSION, 9]):
        raise ConfigError(f"{path} cannot be written")


def _with_maps(image: NDArray[np.uint8], pipeline: Pipeline) -> NDArray[np.uint8]:
    """Returns an image with the classes and the distances of its pixels in the lower right corner."""
    said, spec = pipeline([image])[0], pipeline.bundle.spec
    maps = []
    if (classes := said.get("segmentation")) is not None:
        maps.append(palette(spec.heads["segmentation"])[classes.class_ids])
    if (depth := said.get("depth")) is not None and (ends := span(depth)):
        maps.append(colours(depth.depth, *ends))
    shown = image.copy()
    height, width = (side * 3 // 10 for side in image.shape[:2])
    for i, picture in enumerate(reversed(maps)):
        right, bottom = image.shape[1] - i * (width + 2), image.shape[0]
        small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_NEAREST)
        shown[bottom - height - 2 :, right - width - 2 : right] = 255
        shown[bottom - height :, right - width : right] = small
    return shown


def _chosen(judged: dict[int, Judged], truth: DriveTruth) -> list[int]:
    """Returns the middle answered frame of each room, in the order of the drive, and the worst pose."""
    by_room: dict[str, list[int]] = {}
    for index in sorted(judged):
        by_room.setdefault(truth.rooms[index], []).append(index)
    middle = sorted(frames[len(frames) // 2] for frames in by_room.values())
    worst = max(judged, key=lambda index: judged[index].error_m)
    return [index for index in middle if index != worst] + [worst]
