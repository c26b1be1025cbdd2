"""The head of scene coordinates, as all who use its answers see it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.epistemic import EpistemicSpec
from robot_vision.contract.head import (
    Arrays,
    Column,
    Head,
    Material,
    Output,
    Tap,
    short,
    short_numbers,
)
from robot_vision.contract.topics import LeftOut, Shot, Topic
from robot_vision.geometry.rigid import matrix_from_xyzw
from robot_vision.heads.coordinates.answer import CoordinatesAnswer
from robot_vision.heads.coordinates.options import CoordinatesOptions
from robot_vision.heads.coordinates.solving import solve
from robot_vision.heads.coordinates.spec import CoordinatesSpec
from robot_vision.heads.coordinates.topics import REFUSED, published_pose
from robot_vision.heads.pose.drawing import pose_lines
from robot_vision.heads.pose.topics import pose_topics
from robot_vision.images.canvas import Canvas

if TYPE_CHECKING:
    from robot_vision.contract.attachments import Attachments

PREFIX = "coordinates_"  # of what a pose head has without it


class CoordinatesHead(Head[CoordinatesSpec, CoordinatesAnswer]):
    """Where in the map each cell of the image lies, and the camera's pose from that."""

    kind: ClassVar[str] = "coordinates"
    answer_key: ClassVar[str] = "coordinates"
    Spec = CoordinatesSpec
    Answer = CoordinatesAnswer
    Options = CoordinatesOptions
    needs: ClassVar[frozenset[str]] = frozenset({"camera_info", "mounting"})
    sides: ClassVar[Mapping[str, str]] = {
        "judge": "robot_vision.heads.coordinates.judging:CoordinatesJudge",
        "fitter": "robot_vision.heads.coordinates.fitting:CoordinatesFitter",
        "trainer": "robot_vision.heads.coordinates.training:CoordinatesTrainer",
    }

    def taps(self, spec: CoordinatesSpec) -> tuple[Tap, ...]:
        return tuple(Tap(kind="map", stride=stride) for stride in spec.strides)

    def outputs(self, spec: CoordinatesSpec, several: EpistemicSpec | None) -> dict[str, Output]:
        rows, columns = spec.size
        return {
            self.key("scene_points"): Output((3, rows, columns)),  # metres from the centre
            self.key("scene_deviation"): Output((rows, columns)),  # of each coordinate, metres
        }

    def decoder(
        self, spec: CoordinatesSpec, several: EpistemicSpec | None, material: Material
    ) -> Callable[[Arrays], list[CoordinatesAnswer]]:
        points, deviation = self.key("scene_points"), self.key("scene_deviation")

        def decode(outputs: Arrays) -> list[CoordinatesAnswer]:
            return [
                answer_of(x.transpose(1, 2, 0), sigma, spec)
                for x, sigma in zip(outputs[points], outputs[deviation], strict=True)
            ]

        return decode

    def topics(self, spec: CoordinatesSpec | None) -> Sequence[Topic]:
        # Published covariances are changed where they have negative entries (`signed_covariance`).
        words = {"covariance": f"{PREFIX}published_covariance"}
        return pose_topics(
            self.topic("coordinates/pose"),
            lambda word: self.key(words.get(word, f"{PREFIX}{word}")),
        )

    def resolve(
        self, options: CoordinatesOptions, spec: CoordinatesSpec, material: Material
    ) -> CoordinatesOptions:
        """Returns the options with the name of the map's frame."""
        return dataclasses.replace(options, map_frame=options.map_frame or spec.map_frame)

    def published(
        self, answer: CoordinatesAnswer, shot: Shot, spec: CoordinatesSpec, options: Any
    ) -> CoordinatesAnswer | LeftOut:
        """Returns it with the pose of `base_frame`, if that is wanted; none if too few cells agree."""
        return published_pose(answer, shot, spec)

    def draw(
        self, canvas: Canvas, answer: CoordinatesAnswer, spec: CoordinatesSpec, options: Any
    ) -> None:
        inliers = f"{answer.inliers:.0%} of the cells agree"
        lines = [f"{REFUSED}: {inliers}"]
        if not answer.is_refused:
            lines = [*pose_lines(answer), inliers]
        canvas.lines(*lines)

    def json(
        self,
        answer: CoordinatesAnswer,
        spec: CoordinatesSpec,
        options: Any,
        attach: Attachments | None,
    ) -> Any:
        said: dict[str, Any] = {
            "frame_id": spec.map_frame,
            "refused": answer.is_refused,
            "inliers": short(answer.inliers),
            "deviation_m": short(float(np.median(answer.deviation))),
        }
        if not answer.is_refused:
            said["position"] = short_numbers(answer.position)
            said["orientation_xyzw"] = answer.orientation_xyzw.tolist()
            said["covariance"] = short_numbers(answer.covariance.reshape(-1))
        if attach is not None:
            said["centre"] = list(spec.centre)
            said["npy"] = attach.array(self.key("scene_points"), answer.points)
            said["deviation_npy"] = attach.array(self.key("scene_deviation"), answer.deviation)
        return said

    def heading(self, spec: CoordinatesSpec) -> str:
        return f"pose in {spec.map_frame}"

    def cell(self, answer: CoordinatesAnswer, spec: CoordinatesSpec, options: Any) -> str:
        if answer.is_refused:
            return f"{REFUSED} ({answer.inliers:.0%})"
        x, y, z = answer.position
        deviation = float(np.sqrt(np.trace(answer.covariance[:3, :3])))
        return f"({x:.2f}, {y:.2f}, {z:.2f}) ± {deviation:.2f} m"

    def tally(self, answer: CoordinatesAnswer, spec: CoordinatesSpec, options: Any) -> str | None:
        return REFUSED if answer.is_refused else "pose"

    def about(self, spec: CoordinatesSpec) -> str:
        (rows, columns), (fx, fy, _, _) = spec.size, spec.camera
        height, width = spec.image_size
        return (
            f"scene coordinates of {columns} x {rows} cells, poses of the camera in `{spec.map_frame}`; "
            f"trained with a camera of fx {fx:.0f} and fy {fy:.0f} for {width} x {height}"
        )

    def columns(self, spec: CoordinatesSpec) -> Mapping[str, Column]:
        rows, columns = spec.size
        found = {
            "scene_points": Column((rows, columns, 3), "float32", stream=True),
            "scene_deviation": Column((rows, columns), "float32", stream=True),
            f"{PREFIX}position": Column((3,)),
            f"{PREFIX}orientation_xyzw": Column((4,)),
            f"{PREFIX}covariance": Column((6, 6)),
            "inliers": Column(),
        }
        return {self.key(word): column for word, column in found.items()}

    def pack(self, answer: CoordinatesAnswer) -> dict[str, Any]:
        found = {
            "scene_points": answer.points,
            "scene_deviation": answer.deviation,
            f"{PREFIX}position": answer.position,
            f"{PREFIX}orientation_xyzw": answer.orientation_xyzw,
            f"{PREFIX}covariance": answer.covariance,
            "inliers": answer.inliers,
        }
        return {self.key(word): value for word, value in found.items()}

    def unpack(
        self, row: Mapping[str, Any], spec: CoordinatesSpec, material: Material
    ) -> CoordinatesAnswer:
        rows, columns = spec.size
        points, deviation = (row.get(self.key(f"scene_{w}")) for w in ("points", "deviation"))
        covariance, inliers = (row.get(self.key(w)) for w in (f"{PREFIX}covariance", "inliers"))
        return CoordinatesAnswer(  # a recording of topics has the pose alone
            row[self.key(f"{PREFIX}position")],
            row[self.key(f"{PREFIX}orientation_xyzw")],
            np.full((6, 6), np.nan) if covariance is None else covariance,
            np.zeros((rows, columns, 3), np.float32) if points is None else points,
            np.ones((rows, columns), np.float32) if deviation is None else deviation,
            np.nan if inliers is None else float(inliers),
        )

    def example(self) -> CoordinatesSpec:
        # The camera of contract/check.py, of what a square input sees of its images.
        return CoordinatesSpec((6, 6), (50.0, 50.0, 23.45, 23.65), channels=8, blocks=1)

    def example_outputs(
        self,
        spec: CoordinatesSpec,
        several: EpistemicSpec | None,
        count: int,
        rng: np.random.Generator,
    ) -> dict[str, NDArray[Any]]:
        """Returns points that cameras in poses drawn at random see from 1 to 3 m away."""
        rows, columns = spec.size
        depth = rng.uniform(1, 3, (count, rows, columns, 1))
        rays = np.concatenate([spec.rays(), np.ones((rows, columns, 1))], axis=-1)
        R = matrix_from_xyzw(rng.normal(size=(count, 4)) + [0, 0, 0, 2])
        points = np.einsum("nij,nhwj->nihw", R, depth * rays)
        points += rng.uniform(-1, 1, (count, 3, 1, 1)) + rng.normal(0, 0.01, points.shape)
        return {
            self.key("scene_points"): points.astype(np.float32),
            self.key("scene_deviation"): np.full((count, rows, columns), 0.01, np.float32),
        }


def answer_of(
    points: NDArray[np.float32], deviation: NDArray[np.float32], spec: CoordinatesSpec
) -> CoordinatesAnswer:
    """Returns the answer to scene coordinates (h, w, 3) and their deviation (h, w), metres."""
    points = np.ascontiguousarray(points, np.float32)
    deviation = np.ascontiguousarray(deviation, np.float32)
    found = solve(points, deviation, spec.rays(), spec)
    return CoordinatesAnswer(
        found.position, found.xyzw, found.covariance, points, deviation, found.inliers
    )


HEAD = CoordinatesHead()
