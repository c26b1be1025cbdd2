"""The pose head, as all who use its answers see it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

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
from robot_vision.geometry.rigid import symmetrised
from robot_vision.heads.pose.answer import PoseAnswer
from robot_vision.heads.pose.drawing import pose_lines
from robot_vision.heads.pose.options import PoseOptions
from robot_vision.heads.pose.spec import PoseSpec
from robot_vision.heads.pose.topics import UNKNOWN_VIEW, of_base, pose_topics, unknown_view
from robot_vision.images.canvas import Canvas


class PoseHead(Head[PoseSpec, PoseAnswer]):
    """The camera's pose in the map."""

    kind: ClassVar[str] = "pose"
    answer_key: ClassVar[str] = "pose"
    Spec = PoseSpec
    Answer = PoseAnswer
    Options = PoseOptions
    sampled: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"mounting"})
    sides: ClassVar[Mapping[str, str]] = {
        "judge": "robot_vision.heads.pose.judging:PoseJudge",
        "fitter": "robot_vision.heads.pose.fitting:PoseFitter",
        "trainer": "robot_vision.heads.pose.training:PoseTrainer",
    }

    def taps(self, spec: PoseSpec) -> tuple[Tap, ...]:
        return (Tap(spec.tap, "map"),)

    def outputs(self, spec: PoseSpec, several: EpistemicSpec | None) -> dict[str, Output]:
        found = {
            "position": Output((3,)),  # metres, in the map frame
            "orientation_xyzw": Output((4,), same="up_to_sign"),  # unit, w >= 0
            # x y z (m), then rotation about the map's X Y Z (rad)
            "pose_covariance": Output((6, 6)),
        }
        if several:  # the part of pose_covariance that answers differ by
            found["pose_spread"] = Output((6, 6))
        if spec.views:
            found["known_view"] = Output()  # from 0 to 1, high for views like those trained on
        return {self.key(word): output for word, output in found.items()}

    def decoder(
        self, spec: PoseSpec, several: EpistemicSpec | None, material: Material
    ) -> Callable[[Arrays], list[PoseAnswer]]:
        words = ("position", "orientation_xyzw", "pose_covariance", "pose_spread", "known_view")
        p_key, q_key, c_key, s_key, k_key = map(self.key, words)

        def decode(outputs: Arrays) -> list[PoseAnswer]:
            positions, quaternions, covariances = outputs[p_key], outputs[q_key], outputs[c_key]
            spreads = outputs[s_key] if several else None
            known = outputs[k_key] if spec.views else None
            found = []
            for i in range(len(positions)):
                # Unit to float64 and not float32 precision: consumers check |q| = 1 to 1e-4 or closer.
                q = quaternions[i].astype(np.float64)
                found.append(
                    PoseAnswer(
                        positions[i].astype(np.float64),
                        q / math.sqrt(q.dot(q)),
                        symmetrised(covariances[i].astype(np.float64)),
                        None if spreads is None else symmetrised(spreads[i].astype(np.float64)),
                        None if known is None else float(known[i]),
                    )
                )
            return found

        return decode

    def topics(self, spec: PoseSpec | None) -> Sequence[Topic]:
        return pose_topics(self.topic("pose"), self.key)

    def resolve(self, options: PoseOptions, spec: PoseSpec, material: Material) -> PoseOptions:
        """Returns the options with the name of the map's frame, and the threshold in force."""
        threshold = options.unknown_view_threshold
        if threshold < 0:
            threshold = 0.0 if spec.unknown_threshold is None else spec.unknown_threshold
        return dataclasses.replace(
            options,
            map_frame=options.map_frame or spec.map_frame,
            unknown_view_threshold=threshold,
        )

    def ineffective(self, options: PoseOptions, spec: PoseSpec, material: Material) -> str:
        if spec.views or options.unknown_view_threshold <= 0:
            return ""
        return (
            f"unknown_view_threshold is {options.unknown_view_threshold:g}, but the model has no known-view "
            "score, so no pose is withheld: train it again to have one"
        )

    def published(
        self, answer: PoseAnswer, shot: Shot, spec: PoseSpec, options: PoseOptions
    ) -> PoseAnswer | LeftOut:
        """Returns the pose of `base_frame`, if that is wanted; none of a view that is unknown."""
        if answer.is_unknown(options.unknown_view_threshold):
            return unknown_view(answer, options)
        pose = of_base(answer, shot)
        if pose is answer or isinstance(pose, LeftOut):
            return pose
        return PoseAnswer(
            pose.position, pose.orientation_xyzw, pose.covariance, known_view=answer.known_view
        )

    def draw(
        self, canvas: Canvas, answer: PoseAnswer, spec: PoseSpec, options: PoseOptions
    ) -> None:
        lines = pose_lines(answer)
        if answer.is_unknown(options.unknown_view_threshold):
            lines = [UNKNOWN_VIEW, *lines]
        canvas.lines(*lines)

    def json(self, answer: PoseAnswer, spec: PoseSpec, options: PoseOptions, attach: Any) -> Any:
        found = {
            "frame_id": spec.map_frame,
            "position": short_numbers(answer.position),
            "orientation_xyzw": answer.orientation_xyzw.tolist(),
            "covariance": short_numbers(answer.covariance.reshape(-1)),
        }
        if answer.known_view is not None:
            found["known_view"] = short(answer.known_view)
            found["unknown_view"] = answer.is_unknown(options.unknown_view_threshold)
        return found

    def heading(self, spec: PoseSpec) -> str:
        return f"pose in {spec.map_frame}"

    def cell(self, answer: PoseAnswer, spec: PoseSpec, options: PoseOptions) -> str:
        x, y, z = answer.position
        deviation = float(np.sqrt(np.trace(answer.covariance[:3, :3])))
        said = f"({x:.2f}, {y:.2f}, {z:.2f}) ± {deviation:.2f} m"
        unknown = answer.is_unknown(options.unknown_view_threshold)
        return f"{said}, {UNKNOWN_VIEW}" if unknown else said

    def about(self, spec: PoseSpec) -> str:
        new = (
            "knows new views"
            if spec.views
            else "does not know new views: it has no known-view score"
        )
        return f"PoseNet, poses of the camera in `{spec.map_frame}`, {new}"

    def doubts(self, answer: PoseAnswer) -> Mapping[str, float]:
        """Roots of the traces of both blocks of the covariance and of the part by which answers differ."""
        found: dict[str, float] = {}
        if answer.spread is not None:
            for name, matrix in (("sigma", answer.covariance), ("spread", answer.spread)):
                variances = np.maximum(np.diagonal(matrix), 0.0)
                found[self.key(f"position_{name}_m")] = float(np.sqrt(variances[:3].sum()))
                found[self.key(f"rotation_{name}_rad")] = float(np.sqrt(variances[3:].sum()))
        return found

    def from_doubts(self, said: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """Of the spread only the traces of its two blocks are said: they are spread evenly over the axes."""
        keys = [self.key("position_spread_m"), self.key("rotation_spread_rad")]
        if not all(key in said for key in keys):
            return {}
        spread = np.zeros((len(said[keys[0]]), 6, 6))
        traces = np.stack([said[key] for key in keys], axis=1) ** 2
        spread[:, range(6), range(6)] = np.repeat(traces / 3, 3, axis=1)
        return {self.key("spread"): spread}

    def columns(self, spec: PoseSpec) -> Mapping[str, Column]:
        found = {
            "position": Column((3,)),
            "orientation_xyzw": Column((4,)),
            "covariance": Column((6, 6)),
            "spread": Column((6, 6)),
            "known_view": Column(),
        }
        return {self.key(word): column for word, column in found.items()}

    def pack(self, answer: PoseAnswer) -> dict[str, Any]:
        words = ("position", "orientation_xyzw", "covariance", "spread", "known_view")
        return {self.key(word): getattr(answer, word) for word in words}

    def unpack(self, row: Mapping[str, Any], spec: PoseSpec, material: Material) -> PoseAnswer:
        covariance = row.get(self.key("covariance"))
        known = row.get(self.key("known_view"))
        return PoseAnswer(
            row[self.key("position")],
            row[self.key("orientation_xyzw")],
            np.full((6, 6), np.nan) if covariance is None else covariance,
            row.get(self.key("spread")),
            None if known is None else float(known),
        )

    def example(self) -> PoseSpec:
        return PoseSpec(dropout=0.2, views=3)


HEAD = PoseHead()
