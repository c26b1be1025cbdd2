"""From photographs with GPS on two continents to answers: geometry and pipeline, no accuracy."""

import json
from dataclasses import replace

import numpy as np
import pytest
import yaml
from test_cells_on_earth import BERLIN, FIJI

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.cli import main
from robot_vision.contract import registry
from robot_vision.contract.settings import EvaluationSettings
from robot_vision.datasets import open_dataset
from robot_vision.errors import ConfigError
from robot_vision.evaluation.measure.metrics import score_recording
from robot_vision.evaluation.merge import document
from robot_vision.evaluation.predict.columns import Predictions
from robot_vision.geometry.earth import (
    RADIUS_M,
    apart_m,
    degrees_of_east_north,
    degrees_of_normals,
    normals,
    normals_of,
)
from robot_vision.truth.tracks import Truth

Image = pytest.importorskip("PIL.Image")
SCALE = 400.0  # the kitchen's metres to the town's


def write_photo(source, file, lat, lon):
    """Copies a picture at a tenth of its size, with where it was taken in its EXIF."""
    exif, tags = Image.Exif(), {1: "S" if lat < 0 else "N", 3: "W" if lon < 0 else "E"}
    for tag, value in ((2, abs(lat)), (4, abs(lon))):
        tags[tag] = (float(int(value)), float(int(value % 1 * 60)), round(value * 60 % 1 * 60, 4))
    exif[0x8825] = tags | {5: b"\0", 6: 30.0}
    file.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(source) as image:
        image.resize((64, 48)).save(file, exif=exif)


@pytest.fixture(scope="module")
def photos(data_dir, tmp_path_factory):
    """Real pictures of one kitchen, its first half laid out over Berlin and its second over the date line."""
    root, true = tmp_path_factory.mktemp("photos"), {}
    sources = sorted((data_dir / "kitchen").glob("*.color.jpg"))[::4]
    for i, source in enumerate(sources):
        pose = np.loadtxt(str(source).replace("color.jpg", "pose.txt"))
        place = BERLIN if i < len(sources) // 2 else FIJI
        lat, lon = (
            float(v[0]) for v in degrees_of_east_north(SCALE * pose[None, [0, 2], 3], place)
        )
        file = root / ("test" if i % 4 == 3 else "train") / f"{i:03d}.jpg"
        write_photo(source, file, lat, lon)
        true[file.relative_to(root).as_posix()] = lat, lon
    return root, true


def test_positions_of_photographs_are_those_of_their_exif(photos):
    root, true = photos
    splits = open_dataset("geotagged", root, datum="earth")
    assert (splits.map_frame, splits.datum) == ("earth", "earth") and splits.test
    found, height = normals_of(np.array([s.T_map_camera[:3, 3] for s in splits.samples]))
    expected = normals(*np.array([true[s.name] for s in splits.samples]).T)
    assert apart_m(found, expected).max() < 0.01 and height == pytest.approx(30, abs=1e-6)
    lon = degrees_of_normals(found)[1]
    assert (lon > 179.9).any() and (lon < -179.9).any()
    plane = open_dataset("geotagged", root, datum=f"{BERLIN[0]},{BERLIN[1]}")
    near = {s.name: s.T_map_camera[:3, 3] for s in plane.samples}
    assert 0 < len(near) == sum(lat > 0 for lat, _ in true.values()), "without the other continent"
    for name, xyz in list(near.items())[::10]:
        lat, lon = degrees_of_east_north(xyz[None, :2], BERLIN)
        assert (lat[0], lon[0]) == pytest.approx(true[name], abs=1e-7)
    assert plane.datum == "52.52,13.405" and "more than 1000 km from datum 52.52" in str(
        plane.notes
    )
    with pytest.raises(ConfigError, match="datum is '91,0'"):
        open_dataset("geotagged", root, datum="91,0")


@pytest.mark.slow
def test_a_model_says_where_on_the_earth_and_is_measured_in_kilometres(photos, tmp_path, capsys):
    pytest.importorskip("torch")
    root, true = photos
    config = {
        "name": "towns",
        "heads": ["cells"],
        "data": {"kind": "geotagged", "path": str(root), "options": {"datum": "earth"}},
        "network": {
            "backbone": "shufflenet_v2_x0_5",
            "weights": None,
            "input": {"height": 48, "width": 64},
            "freeze": ["all"],
            "cells": {"smallest_m": 100.0},
        },
        "augmentation": {"name": "none"},
        "loop": {"threads": 1, "accelerator": "cpu", "epochs": 2},
        "cells": {"solve": False},
        "baselines": ["prior", "retrieval"],
    }
    file = tmp_path / "towns.yaml"
    file.write_text(yaml.safe_dump(config))
    assert main(["train", str(file), "--output", str(tmp_path / "run")]) == 0
    assert "Within 25 km" in capsys.readouterr().err
    bundle = tmp_path / "run" / "bundle"
    spec = ModelBundle.load(bundle).spec.heads["cells"]
    assert (spec.plane, spec.map_frame) == ("earth", "earth") and len(spec.images) > 5
    given = ["--model", str(bundle), "--output", str(tmp_path / "judged")]
    given += ["--data", "geotagged", str(root), "--option", "datum=earth", "--split", "test"]
    assert main(["evaluate", *given, "--resamples", "20"]) == 0
    metrics = json.loads((tmp_path / "judged" / "metrics.json").read_text())["cells"]
    assert "distance, km" in (tmp_path / "judged" / "report.html").read_text()
    capsys.readouterr()
    file = tmp_path / "said.jsonl"
    assert main(["infer", str(root / "test"), "--model", str(bundle), "--output", str(file)]) == 0
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    said = {f"test/{line['source'].rsplit('/', 1)[-1]}": line["cells"] for line in lines}
    assert len(said) == metrics["frames"] == sum(name.startswith("test/") for name in true)
    at = np.array([said[name]["best"][0]["centre"] for name in sorted(said)])
    where = np.array([true[name] for name in sorted(said)])
    error = apart_m(normals(*at.T), normals(*where.T))
    assert metrics["median_m"]["value"] == pytest.approx(np.median(error), abs=1.0)
    for km in (1, 25, 200, 750, 2500):
        share = (error <= 1000 * km).mean()
        assert metrics[f"within_{km}km"]["value"] == pytest.approx(share)
    for name, cells in said.items():
        fix = cells["fix"]
        assert (fix["latitude"], fix["longitude"]) == tuple(cells["best"][0]["centre"]), name
        assert 0 < fix["spread_m"] < np.pi * RADIUS_M


def test_positions_without_orientation_are_truth_for_cells_alone():
    """Poses and places ask for orientations too, and what is a stand-in for one is none."""
    stamps = np.arange(10) * 10**8
    xyzw = np.tile([0.0, 0, 0, 1], (10, 1))
    cells = registry.head("cells").example()
    said = Predictions(
        stamps,
        position=np.zeros((10, 3)),
        orientation_xyzw=xyzw,
        more={"cell_probabilities": np.full((10, 4), 0.25, np.float32)},
    )
    truth = Truth.of_arrays(stamps, None, np.zeros((10, 3)), xyzw)
    bound = [(registry.head("pose"), registry.head("pose").example())]
    bound.append((registry.head("cells"), cells))
    options = EvaluationSettings(resamples=5)
    for oriented in (True, False):
        own = replace(truth, poses=replace(truth.poses, oriented=oriented))
        found = document(score_recording(said, own, options, bound=bound), options)
        assert found["cells"]["frames"] == 10
        assert (found["pose"] is None) != oriented
