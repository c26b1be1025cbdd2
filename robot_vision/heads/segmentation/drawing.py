"""Colours of classes, and a mask laid over its image."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from robot_vision.heads.segmentation.answer import Segmentation
from robot_vision.heads.segmentation.spec import SegmentationSpec
from robot_vision.images.canvas import Canvas, Colour, colour_of_name, plain

ALPHA = 0.5  # share of the mask's colours in the picture
_SHOWN = 8  # classes that are named, where there is room


@functools.lru_cache(maxsize=16)
def palette(spec: SegmentationSpec) -> NDArray[np.uint8]:
    """Returns RGB (256, 3): of each class, and black for ids that are none.

    A class without a colour of its own gets one from its name, so that it has the same in all models.
    """
    table = np.zeros((256, 3), np.uint8)
    for i, label in enumerate(spec.labels):
        table[i] = _of_text(spec.colours[i]) if spec.colours else colour_of_name(label)
    table.flags.writeable = False
    return table


def _of_text(text: str) -> Colour:
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def draw_mask(
    canvas: Canvas, answer: Segmentation, spec: SegmentationSpec, title: str = ""
) -> None:
    """Lays a mask over the picture, and names the classes with the largest shares."""
    colours = palette(spec)
    legend = canvas.overlay(colours[answer.class_ids], ALPHA)
    shares = answer.shares(len(spec.labels))
    largest = [i for i in np.argsort(-shares, kind="stable")[:_SHOWN].tolist() if shares[i] > 0]
    legend.bars(
        [
            (
                f"{100 * shares[i]:3.0f}% {title}{plain(spec.labels[i])}",
                float(shares[i]),
                tuple(colours[i].tolist()),
            )
            for i in largest
        ]
    )
