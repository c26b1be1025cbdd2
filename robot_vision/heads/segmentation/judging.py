"""How segmentation is judged: sums of a frame's pixels, and what follows from the sums of all frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from robot_vision.charts.svg import number
from robot_vision.contract.metrics import (
    Baseline,
    Columns,
    Frames,
    Gallery,
    Judge,
    Mask,
    Metric,
    Part,
    Section,
    Shown,
    Statistics,
    same_labels,
)
from robot_vision.contract.rows import RowColumn, Rows
from robot_vision.heads.segmentation.answer import NONE, Segmentation
from robot_vision.heads.segmentation.evaluation import (
    BIN_SUMS,
    COUNTS,
    Numbers,
    calibration_error,
    class_iou,
    class_statistics,
    confidence_sums,
    frame_iou,
    frame_sums,
    statistics,
)
from robot_vision.heads.segmentation.figures import class_bars, reliability_diagram
from robot_vision.statistics.bootstrap import Resampler
from robot_vision.statistics.paired import Bound, PairedEvidence, number_of
from robot_vision.statistics.reliability import BINS, bin_rows

IOU_LOST = 0.01  # of a program against float32
_TEXTS = {
    "hit": "pixels of each class that are said to be of it",
    "said": "pixels with a truth, by the class that is said",
    "true": "pixels by their true class",
    "said_edge": "pixels of the boundary that is said, by class",
    "said_near": "of them those near the true boundary",
    "true_edge": "pixels of the true boundary, by class",
    "true_near": "of them those near the boundary that is said",
}
_BIN_TEXTS = ("pixels by confidence", "sum of their confidences", "of them those that are right")


def _rows(labels: Sequence[str]) -> dict[str, RowColumn]:
    """Returns the columns of a row for some classes."""
    count, names = len(labels), tuple(labels)
    share = "share of each class in what is said"
    return {
        "share": RowColumn("<f8", count, share, identity=True, names=names),
        **{word: RowColumn("<f8", count, text, names=names) for word, text in _TEXTS.items()},
        **{
            word: RowColumn("<f8", BINS, text)
            for word, text in zip(BIN_SUMS, _BIN_TEXTS, strict=True)
        },
        "pixels": RowColumn("<f8", 1, "with a true class of the model"),
        "other_pixels": RowColumn("<f8", 1, "with a true class that the model does not have"),
    }


def score_frames(frames: Frames, labels: Sequence[str], stride: int) -> Columns:
    """Returns the columns of `_rows` of frames: NaN where there is no answer or no truth.

    Pixels are those of the network's input, so that answers of different strides are judged alike.
    """
    n, count = len(frames.stamps_ns), len(labels)
    found: Columns = {word: column.empty(n) for word, column in _rows(labels).items()}
    confidences = frames.columns.get("class_confidence")
    for i in range(n):
        small = frames.columns["class_ids"][i]
        if small is None:
            continue
        found["share"][i] = Segmentation(small).shares(count)
        said = _enlarged(small, stride)
        true = frames.truth.image("image:segmentation", i, said.shape, NONE)
        if true is None:
            continue
        for word, value in frame_sums(said, true, count).items():
            found[word][i] = value
        sure = None if confidences is None else confidences[i]
        if sure is not None:
            sums = confidence_sums(_enlarged(sure, stride), said, true, count)
            for word, value in sums.items():
                found[word][i] = value
    return found


def _enlarged(image: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def _sums(rows: Rows, mask: Mask, words: Sequence[str] = COUNTS) -> dict[str, Numbers]:
    return {word: rows[word][mask] for word in words}


def _judged(rows: Rows) -> Mask:
    return np.asarray(rows["pixels"] > 0)


def _sure(rows: Rows) -> Mask:
    return np.asarray(_judged(rows) & np.isfinite(rows["bin_pixels"][:, 0]))


def _most_frequent(rows: Rows, mask: Mask) -> Statistics:
    """Returns what always saying the class with the most pixels gives."""
    sums = _sums(rows, mask)
    best = int(sums["true"].sum(axis=0).argmax())
    said = {word: np.zeros_like(values) for word, values in sums.items()}
    said["true"], said["true_edge"] = sums["true"], sums["true_edge"]
    said["said"][:, best] = rows["pixels"][mask]
    said["hit"][:, best] = sums["true"][:, best]
    return statistics(said)


def _details(rows: Rows, resampler: Resampler) -> dict[str, Any]:
    mask = _sure(rows)
    if not mask.any():
        return {}
    return {"reliability": bin_rows("pixels", *(rows[word][mask].sum(axis=0) for word in BIN_SUMS))}


def _counts(rows: Rows, mask: Mask) -> dict[str, Any]:
    return {
        "frames": int(mask.sum()),
        "labels": list(rows.labels),
        "pixels": int(rows["pixels"][mask].sum()),
        "pixels_of_other_classes": int(rows["other_pixels"][mask].sum()),
    }


def _meaning(settings: Mapping[str, Any], numbers: Mapping[str, Any]) -> str:
    text = (
        "Whether each pixel of the network's input has the class that it shows; pixels without a true class "
        "do not count. IoU is intersection over union, of all frames' pixels together."
    )
    others = numbers.get("pixels_of_other_classes", 0)
    if others:
        text += f" {others:,} pixels are of classes that the model does not have: they do not count either."
    return text


def _frames(
    choose: Callable[[NDArray[np.int64]], NDArray[np.int64]],
) -> Callable[[Rows], list[Shown]]:
    """Returns what shows frames, chosen of those in the order of their own mean IoU, the best first."""

    def shown(rows: Rows) -> list[Shown]:
        iou = frame_iou(_sums(rows, np.ones(len(rows), bool), ("hit", "said", "true")))
        order = np.argsort(-np.where(np.isfinite(iou), iou, -np.inf), kind="stable")
        order = order[: int(np.isfinite(iou).sum())]
        return [
            Shown(i, (f"mean IoU {iou[i]:.3f}", _worst_class(rows, i)))
            for i in rows.apart(choose(order), 3)
        ]

    return shown


def _worst_class(rows: Rows, i: int) -> str:
    """Returns the class that lost the most pixels of a frame."""
    missed = rows["true"][i] - rows["hit"][i]
    worst = int(missed.argmax())
    if not missed[worst] > 0:
        return "nothing missed"
    share = missed[worst] / rows["pixels"][i]
    return f"missed most: {rows.labels[worst]}, {100 * share:.1f}% of the pixels"


def _from_the_middle(order: NDArray[np.int64]) -> NDArray[np.int64]:
    return order[np.argsort(np.abs(np.arange(len(order)) - (len(order) - 1) / 2), kind="stable")]


def _figures(rows: Rows, numbers: Mapping[str, Any]) -> list[str]:
    sums = _sums(rows, _judged(rows), ("hit", "said", "true"))
    total = {word: values.sum(axis=0, keepdims=True) for word, values in sums.items()}
    found = [class_bars(rows.labels, class_iou(total)[0])]
    if _sure(rows).any():
        found.append(reliability_diagram(numbers["reliability"]))
    return found


SEGMENTATION = Section(
    "segmentation",
    "Segmentation",
    _meaning,
    (
        Metric("mean_iou", "Mean IoU", "%"),
        Metric("pixel_accuracy", "Pixel accuracy", "%"),
        Metric("mean_accuracy", "Mean accuracy of the classes", "%"),
        Metric("frequency_weighted_iou", "Frequency-weighted IoU", "%"),
        Metric("boundary_f", "Boundary F-score", "%"),
        Metric("ece", "Expected calibration error of pixels", "%", False),
    ),
    (
        Part(_judged, lambda rows, mask: statistics(_sums(rows, mask)), same_labels),
        Part(
            _sure,
            lambda rows, mask: {"ece": calibration_error(_sums(rows, mask, BIN_SUMS))},
            same_labels,
            optional=True,
        ),
    ),
    {
        "most_frequent": Baseline(
            "most frequent class",
            "always the class with the most pixels in these very frames",
            _most_frequent,
        )
    },
    _counts,
    details=_details,
    figures=_figures,
    galleries=(
        Gallery("Best frames", _frames(lambda order: order), drawn=True),
        Gallery("Frames from the middle", _frames(_from_the_middle), drawn=True),
        Gallery("Worst frames", _frames(lambda order: order[::-1]), drawn=True),
    ),
    headline="mean IoU {mean_iou}",
)


def _each_class(rows: Rows, resampler: Resampler) -> dict[str, Any]:
    """Returns numbers of each class, with intervals; nothing where no frame was judged."""
    mask = _judged(rows)
    if not mask.any():
        return {}
    found = resampler.headlines(class_statistics(_sums(rows, mask)), mask)
    true, said = (rows[word][mask].sum(axis=0) for word in ("true", "said"))
    classes = [
        {
            "label": label,
            "pixels": int(true[k]),
            "said": int(said[k]),
            **{word: found[f"{word}.{k}"] for word in ("iou", "recall", "precision", "boundary_f")},
        }
        for k, label in enumerate(rows.labels)
    ]
    return {"classes": classes}


def _class_table(numbers: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    total = max(sum(entry["pixels"] for entry in numbers["classes"]), 1)

    def text(value: Mapping[str, Any]) -> str:
        if value["value"] is None:
            return "-"
        ends = [value["low"], value["high"]]
        interval = "" if None in ends else f" [{', '.join(f'{100 * v:.1f}' for v in ends)}]"
        return f"{100 * value['value']:.1f}{interval} %"

    header = ["class", "share of pixels", "IoU", "recall", "precision", "boundary F"]
    cells = [
        [
            entry["label"],
            f"{number(round(100 * entry['pixels'] / total, 2))} %",
            *(text(entry[word]) for word in ("iou", "recall", "precision", "boundary_f")),
        ]
        for entry in numbers["classes"]
    ]
    return header, cells


CLASSES = Section(
    "segmentation_classes",
    "Segmentation, class by class",
    "Intersection over union, recall, precision and boundary F-score of each class, over all frames.",
    details=_each_class,
    table=_class_table,
)


class SegmentationJudge(Judge):
    """Judges the class of each pixel by images of true classes."""

    truth: ClassVar[frozenset[str]] = frozenset({"image:segmentation"})
    needs: ClassVar[tuple[str, ...]] = ("class_ids",)

    def facts(self, spec: Any) -> dict[str, Any]:
        """Returns the labels and the stride of the answer."""
        return {"labels": list(spec.labels), "stride": spec.stride}

    def rows(self, facts: Mapping[str, Any]) -> Mapping[str, RowColumn]:
        """Returns the columns; those of each class are empty where the classes are not known."""
        return _rows(facts.get("labels", ()))

    def score(self, frames: Frames, facts: Mapping[str, Any]) -> Columns:
        return score_frames(frames, facts["labels"], facts["stride"])

    def sections(self) -> Sequence[Section]:
        return (SEGMENTATION, CLASSES)

    def certify(
        self, float32: Rows, program: Rows, evidence: PairedEvidence
    ) -> Mapping[str, Bound]:
        """Bounds by how much the mean IoU is lower."""
        mask = _judged(float32)
        each = [number_of(statistics(_sums(r, mask)), "mean_iou") for r in (program, float32)]
        return {"mean_iou_lost": evidence.lost(each, mask, IOU_LOST, "mean IoU loses {:.4f}")}

    def said(self, rows: Rows) -> list[str]:
        """Returns which classes the network saw most of, where there is no truth."""
        share = rows["share"][np.isfinite(rows["share"]).all(axis=1)]
        if not len(share) or _judged(rows).any():
            return []
        mean = share.mean(axis=0)
        order = np.argsort(-mean, kind="stable")[:8].tolist()
        return [f"{rows.labels[k]}: {100 * mean[k]:.1f} % of the pixels" for k in order if mean[k]]
