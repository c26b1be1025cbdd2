"""The depth head, as all who use its answers see it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from robot_vision.contract.epistemic import EpistemicSpec
from robot_vision.contract.head import Arrays, Column, Head, Material, Output, Tap, short
from robot_vision.contract.topics import LeftOut, Shot, Topic
from robot_vision.heads.depth.answer import DepthAnswer
from robot_vision.heads.depth.drawing import colours, line, scale, span
from robot_vision.heads.depth.options import DepthOptions
from robot_vision.heads.depth.spec import DepthSpec
from robot_vision.heads.depth.topics import depth_topics
from robot_vision.images.canvas import Canvas

if TYPE_CHECKING:
    from robot_vision.contract.attachments import Attachments
    from robot_vision.images.window import Window

_EDGE = 1e-4  # an answer this near to the largest depth, as a share of it, says nothing


class DepthHead(Head[DepthSpec, DepthAnswer]):
    """Depth of each pixel in metres, and how sure it is."""

    kind: ClassVar[str] = "depth"
    answer_key: ClassVar[str] = "depth"
    Spec = DepthSpec
    Answer = DepthAnswer
    Options = DepthOptions
    needs: ClassVar[frozenset[str]] = frozenset({"camera_info", "mounting"})
    sides: ClassVar[Mapping[str, str]] = {
        "judge": "robot_vision.heads.depth.judging:DepthJudge",
        "fitter": "robot_vision.heads.depth.fitting:DepthFitter",
        "trainer": "robot_vision.heads.depth.training:DepthTrainer",
    }

    def taps(self, spec: DepthSpec) -> tuple[Tap, ...]:
        return tuple(Tap(kind="map", stride=stride) for stride in spec.strides)

    def outputs(self, spec: DepthSpec, several: EpistemicSpec | None) -> dict[str, Output]:
        return {self.key(word): Output(tuple(spec.size)) for word in ("depth", "depth_sigma")}

    def decoder(
        self, spec: DepthSpec, several: EpistemicSpec | None, material: Material
    ) -> Callable[[Arrays], list[DepthAnswer]]:
        depths, sigmas = self.key("depth"), self.key("depth_sigma")
        farthest = np.float32(spec.maximum * (1 - _EDGE))

        def decode(outputs: Arrays) -> list[DepthAnswer]:
            found = []
            for depth, sigma in zip(outputs[depths], outputs[sigmas], strict=True):
                if np.isfinite(depth).all() and np.isfinite(sigma).all():
                    depth = np.where(depth < farthest, depth, np.float32(np.nan))
                else:  # refused by `not_finite`
                    depth = np.full_like(depth, np.inf)
                found.append(DepthAnswer(depth, depth * sigma))
            return found

        return decode

    def topics(self, spec: DepthSpec | None) -> Sequence[Topic]:
        return depth_topics(self.topic, self.key, spec or DepthSpec())

    def ineffective(self, options: DepthOptions, spec: DepthSpec, material: Material) -> str:
        if options.obstacle_low_m < options.obstacle_high_m:
            return ""
        return (
            f"obstacle_low_m is {options.obstacle_low_m:g} and obstacle_high_m {options.obstacle_high_m:g}, "
            "so nothing is ever an obstacle: set the second one above the first"
        )

    def published(
        self, answer: DepthAnswer, shot: Shot, spec: DepthSpec, options: DepthOptions
    ) -> DepthAnswer | LeftOut:
        """Returns the depth without the padding of the network's input, and without unsure pixels."""
        depth = answer.depth
        if shot.window is not None and (padding := _padding(shot.window, depth.shape)) is not None:
            depth = np.where(padding, np.float32(np.nan), depth)
        if options.depth_max_sigma and (sigma := answer.sigma) is not None:
            depth = np.where(sigma <= options.depth_max_sigma, depth, np.float32(np.nan))
        return answer if depth is answer.depth else dataclasses.replace(answer, depth=depth)

    def draw(self, canvas: Canvas, answer: DepthAnswer, spec: DepthSpec, options: Any) -> None:
        ends = span(answer)
        title = "" if self.name == self.kind else f"{self.name}: "
        if ends is None:
            canvas.lines(title + line(answer))
            return
        legend = canvas.overlay(colours(answer.depth, *ends))
        legend.lines(title + line(answer))
        legend.strip(scale(*ends))

    def json(
        self, answer: DepthAnswer, spec: DepthSpec, options: Any, attach: Attachments | None
    ) -> Any:
        ends = span(answer)
        said: dict[str, Any] = {"answered": short(float(np.isfinite(answer.depth).mean()))}
        if ends is not None:
            said["median_m"] = short(float(np.nanmedian(answer.depth)))
            said["from_m"], said["to_m"] = map(short, ends)
            if answer.deviation is not None:
                said["deviation_m"] = short(float(np.nanmedian(answer.deviation)))
        if attach is not None:
            said["npy"] = attach.array(self.key("depth"), answer.depth)
            if answer.deviation is not None:
                said["deviation_npy"] = attach.array(self.key("depth_deviation"), answer.deviation)
        return said

    def cell(self, answer: DepthAnswer, spec: DepthSpec, options: Any) -> str:
        ends = span(answer)
        if ends is None:
            return f"nothing within {spec.maximum:g} m"
        return f"{ends[0]:.2f} to {ends[1]:.2f} m"

    def about(self, spec: DepthSpec) -> str:
        rows, columns = spec.size
        return f"depth from {spec.minimum:g} to {spec.maximum:g} m of {columns} x {rows} pixels"

    def columns(self, spec: DepthSpec) -> Mapping[str, Column]:
        # Three digits are more than depth from one image has.
        column = Column(tuple(spec.size), "float16", stream=True)
        return {self.key("depth"): column, self.key("depth_deviation"): column}

    def pack(self, answer: DepthAnswer) -> dict[str, Any]:
        return {self.key("depth"): answer.depth, self.key("depth_deviation"): answer.deviation}

    def unpack(self, row: Mapping[str, Any], spec: DepthSpec, material: Material) -> DepthAnswer:
        deviation = row.get(self.key("depth_deviation"))
        return DepthAnswer(
            np.asarray(row[self.key("depth")], np.float32),
            None if deviation is None else np.asarray(deviation, np.float32),
        )

    def example(self) -> DepthSpec:
        return DepthSpec(size=(4, 5), channels=8)


@functools.lru_cache(maxsize=16)
def _padding(window: Window, size: tuple[int, int]) -> NDArray[np.bool_] | None:
    """Returns which pixels show no image; None where all of them show it."""
    padding = ~window.covered(size)
    return padding if padding.any() else None


HEAD = DepthHead()
