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


# Training


def learner(kind, name, known=True):
    """Returns a trainer, its module, and a batch of 12 samples of four places, with or without a truth."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from robot_vision.datasets.sample import Sample
    from robot_vision.images.input import InputSpec
    from robot_vision.training.samples.data import SampleSet

    head, spec = bound(kind, name)
    trainer = head.trainer()
    torch.manual_seed(0)
    rng, labels, samples = np.random.default_rng(0), ("a", "b", "c"), []
    for i in range(12):
        pose = np.eye(4)
        pose[:3, 3] = 100 * (i % 4), *rng.uniform(-1, 1, 2)
        words = {"label": labels[i % 3], "number": float(np.sin(i))}
        word = trainer.word()
        truth = {word: words[word.partition(":")[0]]} if known and ":" in word else {}
        label, T = (labels[i % 3], pose) if known else (None, None)
        samples.append(Sample(str(i), label, T, None, "s", None, truth=truth))
    found = SampleSet.of(samples, labels, InputSpec(), lambda s: trainer.targets(s, spec))
    module = trainer.module(spec, [(8, 4, 4)] * len(head.taps(spec)))
    batch = trainer.own(found.targets)
    batch |= {"index": torch.arange(12), "images": torch.zeros(12, 8, 8, 3, dtype=torch.uint8)}
    features = [torch.randn(12, 8, 4, 4) for _ in head.taps(spec)]
    return trainer, trainer.built(spec, module), module, batch, features


@every_head
@under_names
def test_steps_on_one_batch_lower_every_loss(kind, name):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    for loss_name in registry.head(kind).trainer().losses:
        trainer, spec, module, batch, features = learner(kind, name)
        trainer.settings = trainer.Settings(loss=loss_name)
        loss = trainer.loss(spec, batch)
        optimiser = torch.optim.Adam([*module.parameters(), *loss.parameters()], lr=1e-3)
        values = []
        for _ in range(10):
            value = loss(module(*features), batch).total
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            values.append(float(value.detach()))
        assert values[-1] < values[0], loss_name


@every_head
@under_names
def test_batch_without_truth_has_a_loss_of_zero_and_gradients(kind, name):
    trainer, spec, module, batch, features = learner(kind, name, known=False)
    value = trainer.loss(spec, batch)(module(*features), batch).total
    value.backward()
    assert float(value.detach()) == 0


@every_head
@under_names
def test_module_decodes_to_the_outputs_that_are_promised(kind, name):
    trainer, spec, module, _, features = learner(kind, name)
    module.eval()
    outputs = module.decode(module(*features))
    promised = trainer.head.outputs(spec, None)
    assert {trainer.head.key(word) for word in outputs} == set(promised)
    for word, value in outputs.items():
        output = promised[trainer.head.key(word)]
        assert tuple(value.shape) == (12, *output.shape)
        assert str(value.dtype) == f"torch.{output.dtype}"


@every_head
def test_settings_of_training_load_no_torch(kind):
    if kind not in registry.BUILT_IN:
        pytest.skip("another package may import what it needs")
    code = (
        "import sys; from robot_vision.contract import registry\n"
        f"registry.head({kind!r}).trainer().Settings()\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
