"""`robot-vision optimise`: on a folder of pictures, in place, and what it says."""

import json

import cv2
import numpy as np
import pytest
from colour_samples import colour_samples
from conv_bundle import make_conv_bundle
from tiny_bundle import make_tiny_bundle

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.cli import main

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lights(tmp_path_factory):
    """A folder of 600 pictures, each a class's."""
    folder = tmp_path_factory.mktemp("lights")
    rng = np.random.default_rng(3)
    for sample in colour_samples(600, rng):
        place = folder / sample.label / f"{sample.name}.png"
        place.parent.mkdir(exist_ok=True)
        pixels = rng.integers(-9, 10, (32, 48, 3)) + sample.source.colour
        cv2.imwrite(str(place), pixels[..., ::-1].clip(0, 255).astype(np.uint8))
    return folder


def test_in_place_with_a_table_of_what_was_proven(lights, tmp_path, capsys):
    path = make_conv_bundle(tmp_path / "conv", heads=("classifier",))
    before = ModelBundle.load(path)
    command = ["optimise", str(path), "--data", "image_folder", str(lights), "--split", "all"]
    assert main([*command, "--programs", "int8", "--resamples", "100"]) == 0
    said = capsys.readouterr()
    after = ModelBundle.load(path)
    assert after.graph == before.graph and [p.name for p in after.programs] == ["int8"]
    assert "400" in said.out and "yes" in said.out and f"bundle: {path}" in said.out
    assert "200 images choose, 400 others certify" in said.err
    assert not [p for p in path.parent.iterdir() if p != path]
    assert main(["info", str(path)]) == 0
    assert "first class" in capsys.readouterr().out
    assert main(["info", str(path), "--json"]) == 0
    program = json.loads(capsys.readouterr().out)["bundle"]["programs"][0]
    assert program["certificates"][0]["heads"]["classifier"]["agreement"]["limit"] == 0.97

    calibrated = tmp_path / "calibrated"
    assert main(["calibrate", str(path), *command[2:], "--output", str(calibrated)]) == 0
    assert "its programs int8 are left out" in " ".join(capsys.readouterr().out.split())
    assert ModelBundle.load(calibrated).programs == ()
    assert {p.name for p in calibrated.iterdir()}.isdisjoint(
        {"model.int8.onnx", "probes.safetensors"}
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--programs", "int4"], "Unknown program 'int4'"),
        (["--programs", ","], "no program is named"),
        (
            ["--split", "all", "--resamples", "0"],
            "resamples is 0: a certificate needs at least 100",
        ),
        (["--split", "test"], "has no test images: choose another --split"),
        (["--split", "all", "--programs", "int8"], "no layers that are named as the backbone's"),
    ],
)
def test_what_does_not_work_is_one_line_and_leaves_the_bundle(
    lights, tmp_path, capsys, arguments, words
):
    path = make_tiny_bundle(tmp_path / "tiny", heads=("classifier",))
    before = (path / "bundle.yaml").read_bytes()
    options = ["--option", "test=0"] if "test" in arguments else []
    found = main(
        ["optimise", str(path), "--data", "image_folder", str(lights), *arguments, *options]
    )
    assert found == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("robot-vision optimise: ") and words in said
    assert (path / "bundle.yaml").read_bytes() == before


def test_another_place_must_be_free(lights, tmp_path, capsys):
    path = make_conv_bundle(tmp_path / "conv", heads=("classifier",))
    out = ["--out", str(make_tiny_bundle(tmp_path / "taken"))]
    assert main(["optimise", str(path), "--data", "image_folder", str(lights), *out]) == 2
    assert "exists already: give another directory" in capsys.readouterr().err
