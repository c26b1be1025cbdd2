"""A head that reads two maps of the backbone and is of no package of ours: from training to a bundle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from train_data import COLOURS, configuration, make_labelled

from robot_vision.backbones.architectures import look_inside
from robot_vision.contract import registry
from robot_vision.contract.head import Answer, Column, Head, Output, Tap
from robot_vision.contract.losses import LossValue
from robot_vision.contract.training import HeadSettings, Target, Trainer
from robot_vision.errors import ConfigError
from robot_vision.networks.checkpoint import load_network
from robot_vision.settings.declared import option
from robot_vision.settings.mappings import from_mapping
from robot_vision.training.run import train


@dataclass(frozen=True)
class ColourSpec:
    KIND: ClassVar[str] = "colour"
    hidden: int = 16


@dataclass(frozen=True)
class Colour(Answer):
    rgb: np.ndarray


class Module(nn.Module):
    def __init__(self, shapes, hidden):
        super().__init__()
        channels = sum(shape[0] for shape in shapes)
        self.layers = nn.Sequential(
            nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, 3), nn.Sigmoid()
        )

    def forward(self, fine, coarse):
        return {"rgb": self.layers(torch.cat([x.mean((2, 3)) for x in (fine, coarse)], dim=1))}

    def decode(self, raw):
        return {"rgb": raw["rgb"].float()}


class Squares(nn.Module):
    def forward(self, raw, batch):
        return LossValue((raw["rgb"] - batch["rgb"]).square().mean(), {})


@dataclass(frozen=True)
class Settings(HeadSettings):
    loss: str = option("squares", "name of the loss")


class ColourTrainer(Trainer[ColourSpec]):
    Settings = Settings
    losses = {"squares": "test_taps:Squares"}
    harms = frozenset({"mixup"})
    truth = "label"

    def spec(self, settings, facts):
        return from_mapping(ColourSpec, f"network.{self.name}", settings)

    def targets(self, samples, spec):
        values = torch.tensor([COLOURS[s.label] for s in samples]).float().reshape(-1, 3) / 255
        return {self.head.key("rgb"): Target(values, torch.nan)}

    def module(self, spec, shapes):
        return Module(shapes, spec.hidden)

    def measure(self, outputs, targets, spec, stored=None):
        each = (outputs["rgb"] - targets["rgb"]).square().mean(1, keepdim=True).double().numpy()
        return {"rms": float(np.sqrt(each.mean()))}, -each

    def score(self, metrics, reference):
        return -metrics["rms"]


class ColourHead(Head[ColourSpec, Colour]):
    kind = "colour"
    answer_key = "colour"
    Spec = ColourSpec
    Answer = Colour
    sides = {"trainer": f"{__name__}:ColourTrainer"}

    def taps(self, spec):
        return Tap(stride=8), Tap(kind="map")

    def outputs(self, spec, several):
        return {self.key("rgb"): Output((3,))}

    def decoder(self, spec, several, material):
        return lambda arrays: [Colour(rgb) for rgb in arrays[self.key("rgb")]]

    def json(self, answer, spec, options, attach):
        return answer.rgb.tolist()

    def cell(self, answer, spec, options):
        return str(answer.rgb)

    def columns(self, spec):
        return {self.key("rgb"): Column((3,))}

    def pack(self, answer):
        return {self.key("rgb"): answer.rgb}

    def unpack(self, row, spec, material):
        return Colour(row[self.key("rgb")])


HEAD = ColourHead()


@pytest.fixture
def known(monkeypatch):
    monkeypatch.setitem(registry.BUILT_IN, "colour", "test_taps:HEAD")


def test_stride_names_the_last_stage_with_it():
    inside = look_inside("resnet18")
    assert [inside.of_stride(s) for s in (4, 8, 16, 32)] == ["layer1", "layer2", "layer3", "layer4"]
    with pytest.raises(ConfigError, match="stride 3: use one of 2, 4, 8, 16, 32"):
        inside.of_stride(3)


@pytest.mark.slow
def test_head_of_two_taps_trains_next_to_a_classifier_and_ships(known, tmp_path):
    config = configuration(
        "image_folder",
        make_labelled(tmp_path / "data"),
        tmp_path / "run",
        heads={"classifier": {}, "paint": {"kind": "colour"}},
        network={"freeze": ["all"], "input": {"height": 64, "width": 64}},
        paint={"weight": 2.0},
        loop={"epochs": 45},
        optimiser={"learning_rate": 0.02},
    )
    result = train(config, quiet=True, command="test")
    assert result is not None
    network = load_network(result.bundle / "weights.safetensors")
    fine, coarse = (network.backbone.shapes[tap] for tap in network.taps["paint"])
    assert (fine[1:], coarse[1:]) == ((8, 8), (2, 2))
    rms = [entry["validation"]["paint"]["rms"] for entry in result.report["history"]]
    shipped = result.report["variants"]["float32"]["metrics"]["paint"]["rms"]
    assert rms[0] > 0.25 and shipped < 0.2, (rms[0], shipped)  # of 0.27 for always the mean
    assert "paint.rgb" in network.spec.outputs
