"""Data sets: samples with image, label and pose, from the formats that people have."""

from robot_vision.datasets.registry import DATASETS, dataset_options, open_dataset
from robot_vision.datasets.sample import SPLIT_NAMES, ImageSource, Sample, Splits

__all__ = [
    "DATASETS",
    "SPLIT_NAMES",
    "ImageSource",
    "Sample",
    "Splits",
    "dataset_options",
    "open_dataset",
]
