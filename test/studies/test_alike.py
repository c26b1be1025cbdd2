"""Which images, and which pixels of them, are shown as examples of what an answer rests on."""

import shutil

import cv2
import numpy as np
import pytest
import torch

from robot_vision.bundle.bundle import WEIGHTS, ModelBundle
from robot_vision.bundle.installed import find_model
from robot_vision.cli import main
from robot_vision.contract.spec import NetworkSpec
from robot_vision.contract.training import Asked
from robot_vision.datasets import open_dataset
from robot_vision.heads.segmentation.spec import SegmentationSpec
from robot_vision.images.input import InputSpec
from robot_vision.images.window import Window
from robot_vision.networks.checkpoint import load_network
from robot_vision.networks.network import MultiHeadNetwork
from robot_vision.simulation.drive import evaluation_drive
from robot_vision.simulation.world.home import default_world
from robot_vision.simulation.world.renderer import SURFACES, Renderer
from robot_vision.simulation.world.sensor import Sensor, render_frames
from robot_vision.studies.alike import _read, draw_examples, most_alike
from robot_vision.studies.explain import network_input, trace

SIZE = (240, 320)


@pytest.fixture(scope="module")
def demo():
    return load_network(ModelBundle.load(find_model("demo")).path / WEIGHTS)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder of 9 images of the demo's home with their truth, and 3 of another drive with theirs."""
    world, folder = default_world(), tmp_path_factory.mktemp("home")
    renderer = Renderer(world)
    for name in ("images", "labels", "depth"):
        (folder / name).mkdir()
    (folder / "classes.txt").write_text("\n".join(f"{i} {s}" for i, s in enumerate(SURFACES)))
    frames = evaluation_drive(world, rate_hz=0.5, seed=1000)[::2][:9]
    for i, (frame, image) in enumerate(
        zip(frames, render_frames(world, frames, Sensor(seed=1)), strict=True)
    ):
        ids, metres = renderer.truth(frame.T_map_camera)
        cv2.imwrite(str(folder / "images" / f"{i:03d}.png"), image[..., ::-1])
        cv2.imwrite(str(folder / "labels" / f"{i:03d}.png"), ids)
        cv2.imwrite(str(folder / "depth" / f"{i:03d}.png"), (metres * 1000).astype(np.uint16))
    others = evaluation_drive(world, rate_hz=0.1, seed=2)[1:4]
    asked = list(render_frames(world, others, Sensor(seed=2)))
    return folder, asked, [renderer.truth(frame.T_map_camera) for frame in others]


def samples(folder, kind):
    return open_dataset(kind, folder, split="train").train


@pytest.mark.slow
def test_pixels_that_are_most_alike_show_the_same_and_are_as_far_away(demo, home):
    folder, asked_of, truth = home
    rng = np.random.default_rng(0)
    masks, depths = samples(folder, "mask_folder"), samples(folder, "depth_folder")
    same, by_chance, off, off_by_chance = [], [], [], []
    for image, (ids, metres) in zip(asked_of, truth, strict=True):
        x, y = rng.integers(20, 300), rng.integers(20, 220)
        asked = Asked(Window.of(SIZE, demo.spec.input), box=(int(x), int(y), 1, 1))
        shown = network_input(image, demo.spec.input)
        evidence, found, _ = most_alike(demo, "segmentation", shown, asked, masks, 2)
        assert len(found) == 2 and evidence.region.sum() == 1
        assert [e.similarity for e in found] == sorted((e.similarity for e in found), reverse=True)
        same += [e.true == SURFACES[ids[y, x]] for e in found]
        assert all(e.said.split(",")[0] in SURFACES for e in found)
        others = [cv2.imread(str(f), -1) for f in sorted((folder / "labels").iterdir())]
        by_chance += [(other == ids[y, x]).mean() for other in others]
        _, found, _ = most_alike(demo, "depth", shown, asked, depths, 2)
        off += [abs(np.log(float(e.true.split()[0]) / metres[y, x])) for e in found if e.true]
        others = [cv2.imread(str(f), -1) / 1000 for f in sorted((folder / "depth").iterdir())]
        known = np.concatenate([other[other > 0] for other in others])
        off_by_chance.append(np.abs(np.log(known / metres[y, x])).mean())
    assert np.mean(same) > max(0.6, 2 * np.mean(by_chance))
    assert np.mean(off) < 0.8 * np.mean(off_by_chance)


@pytest.mark.slow
@pytest.mark.parametrize(("decoder", "maps"), [("lraspp", 1), ("fcn8s", 3)])
def test_a_head_that_sums_scores_of_several_maps_has_all_of_them_compared(decoder, maps):
    spec = SegmentationSpec(("a", "b"), height=16, width=24, decoder=decoder, channels=8)
    network = MultiHeadNetwork(
        NetworkSpec("resnet18", InputSpec(64, 96), heads={"segmentation": spec})
    ).eval()
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3)).astype(np.uint8)
    asked = Asked(Window.of((64, 96), network.spec.input), box=(40, 30, 1, 1))
    found = trace(network, "segmentation", image, asked)
    read = _read(network, "segmentation", found, asked)
    assert len(read.maps) == len(read.gradients) == maps
    for own, again in zip(read.maps, read.of(image), strict=True):
        torch.testing.assert_close(own, again)


@pytest.mark.slow
def test_an_image_is_no_example_of_itself_and_rooms_are_found_by_the_whole_image(demo, home):
    folder = home[0]
    some = samples(folder, "mask_folder")
    own = some[3]
    image = network_input(own.source.load(), demo.spec.input)
    asked = Asked(Window.of(SIZE, demo.spec.input))
    alike = most_alike(demo, "classifier", image, asked, some, 4)
    evidence, found, unread = alike
    assert unread == 0
    assert len(found) == 4 and own.name not in {e.sample.name for e in found}
    assert all(e.region is None for e in found)
    assert found[0].said.split("  ")[0] == evidence.text.split("  ")[0]
    assert most_alike(demo, "place", image, asked, some) is None
    picture = draw_examples(image, alike, "classifier", "9 images")
    assert picture.shape[2] == 3 and picture.std() > 10


@pytest.mark.slow
def test_command_shows_examples_of_a_data_set(tmp_path, home, capsys):
    folder, asked_of, _ = home
    photo = str(tmp_path / "photo.png")
    cv2.imwrite(photo, asked_of[0][..., ::-1])
    data_folder = tmp_path / "data"
    shutil.copytree(folder, data_folder)
    (data_folder / "images" / "000.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    given = ["explain", "--model", "demo", photo, "--output", str(out)]
    data = ["--data", "mask_folder", str(data_folder), "--option", "split=train"]
    assert main([*given, *data, "--pixel", "160", "200"]) == 0
    names = ["depth-alike", "depth", "layers", "segmentation-alike", "segmentation"]
    assert sorted(p.name for p in out.iterdir()) == [f"000-photo-{name}.png" for name in names]
    assert "1 of 9 images" in capsys.readouterr().err
    backbone = ["explain", "--backbone", "resnet18", photo, "--output", str(out)]
    for refused, words in (
        ([*backbone, *data], "give --model instead of --backbone"),
        ([*given, "--option", "split=train"], "--option belongs to a data set"),
        ([*given, "--split", "test"], "--split belongs to a data set"),
        ([*given, "--size", "96"], "--size belongs to --backbone"),
        ([*given, *data, "--split", "test"], "has no test images: --split may be train"),
    ):
        assert main(refused) == 2
        assert words in capsys.readouterr().err
