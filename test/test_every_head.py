"""What every head promises (robot_vision/contract), asked of all that are installed."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import yaml

from robot_vision.contract import registry
from robot_vision.contract.epistemic import EpistemicSpec
from robot_vision.contract.head import Material
from robot_vision.contract.spec import NetworkSpec
from robot_vision.errors import ConfigError

NAMES = ["", "other"]  # of a head: its kind, and another
NEEDED = {"classifier": {"labels": ("a", "b", "c")}, "place": {"descriptor_size": 8}}

every_head = pytest.mark.parametrize("kind", registry.names())
under_names = pytest.mark.parametrize("name", NAMES)


def bound(kind, name=""):
    """Returns a head under a name, and small settings for it."""
    head = registry.head(kind)
    spec = head.Spec(**NEEDED.get(kind, {}), **({"dropout": 0.2} if head.sampled else {}))
    return head.named(name or kind), spec


def several(head):
    return EpistemicSpec(passes=2) if head.sampled else None


def answers(head, spec, count=3, seed=0):
    """Returns answers of a decoder to numbers of the promised shapes and types."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, output in head.outputs(spec, several(head)).items():
        values = rng.uniform(0.1, 1, (count, *output.shape))
        scale = 1 if np.dtype(output.dtype).kind == "f" else 100
        arrays[name] = (values * scale).astype(output.dtype)
    return head.decoder(spec, several(head), Material())(arrays)


# Serving


@every_head
@under_names
def test_spec_is_read_back_through_yaml(kind, name):
    head, spec = bound(kind, name)
    network = NetworkSpec(heads={head.name: spec}, epistemic=several(head))
    assert NetworkSpec.from_dict(yaml.safe_load(yaml.safe_dump(network.to_dict()))) == network


@every_head
def test_unknown_setting_is_refused_with_the_nearest(kind):
    head, spec = bound(kind)
    data = NetworkSpec(heads={kind: spec}).to_dict()
    setting = next(iter(data["heads"][kind]))
    data["heads"][kind][setting + "x"] = 1
    with pytest.raises(ConfigError, match=f"did you mean '{setting}'"):
        NetworkSpec.from_dict(data)


@every_head
@under_names
def test_decoder_gives_a_finite_answer_a_row(kind, name):
    head, spec = bound(kind, name)
    found = answers(head, spec)
    assert len(found) == 3 and all(isinstance(a, head.Answer) for a in found)
    assert not any(a.not_finite() for a in found)


def test_serving_loads_neither_torch_nor_ros_nor_charts():
    heavy = ("torch", "matplotlib", "rclpy", "robot_vision.charts")
    code = (
        "import sys; from robot_vision.contract import registry\n"
        "[registry.head(kind) for kind in registry.names()]\n"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
