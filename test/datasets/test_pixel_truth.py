"""Label images and depth images of data sets, written here by their formats' own definitions."""

import json
import pickle

import cv2
import numpy as np
import pytest
from tiny_datasets import seven_scenes, tum, write_image

from robot_vision.cli import main
from robot_vision.datasets import open_dataset
from robot_vision.datasets.pictures import truth_sheet
from robot_vision.datasets.pixel_truth import PixelFile, read_classes
from robot_vision.datasets.sample import Sample, Splits, true_values
from robot_vision.errors import ConfigError, ImageError, SourceError
from robot_vision.heads.segmentation.drawing import palette
from robot_vision.heads.segmentation.spec import SegmentationSpec

WORD = "image:segmentation"
IDS = np.array([[0, 0, 7], [7, 9, 255]], np.uint8)
TABLE = "id,name,r,g,b\n0,floor,0,0,255\n7,wall,255,255,0\n9,void,0,0,0\n"
# OpenCV writes blue first.
BGR = {0: (255, 0, 0), 7: (0, 255, 255), 9: (0, 0, 0), 255: (0, 0, 0)}
CLASSES = np.array([[0, 0, 1], [1, 255, 255]])


def write(file, image):
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(file), image)


def scene(root, parts=("",), count=4):
    """Images of 32 x 24 whose left part, as wide as their number, is class 1 of `floor,wall`."""
    for part in parts:
        for i in range(count):
            write_image(root / part / f"images/f{i}.png", i)
            mask = np.zeros((24, 32), np.uint8)
            mask[:, :i] = 1
            write(root / part / f"labels/f{i}.png", mask)
    return root


def test_ids_colours_and_palettes_become_the_same_classes(tmp_path):
    (tmp_path / "classes.csv").write_text(TABLE)
    notes = []
    table = read_classes("classes.csv", tmp_path, "", notes)
    assert table.classes.names == ("floor", "wall")
    assert table.classes.colours == ((0, 0, 255), (255, 255, 0))
    assert notes == ["pixels of void count as pixels without truth"]
    write(tmp_path / "ids.png", IDS)
    write(tmp_path / "ids16.png", IDS.astype(np.uint16))
    write(tmp_path / "colours.png", np.array([[BGR[i] for i in row] for row in IDS], np.uint8))
    for name in ("ids", "ids16", "colours"):
        found = PixelFile(str(tmp_path / f"{name}.png"), table=table).load()
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, CLASSES, err_msg=name)
    image = pytest.importorskip("PIL.Image")
    made = image.fromarray(IDS, "P")
    made.putpalette(np.random.default_rng(0).permutation(768).astype(np.uint8).tolist())
    made.save(tmp_path / "palette.png")
    # The palette's colours are not the table's: then its numbers count.
    found = PixelFile(str(tmp_path / "palette.png"), table=table).load()
    np.testing.assert_array_equal(found, CLASSES)
    plain = read_classes("floor,a,b,c,d,e,f,wall,g,void", tmp_path, "1,2,3,4,5,6,8", [])
    found = PixelFile(str(tmp_path / "palette.png"), table=plain).load()
    np.testing.assert_array_equal(found, CLASSES)


@pytest.mark.parametrize(
    "text",
    [
        "0 0 255\tfloor\n255 255 0\twall\n0 0 0\tVoid\n",  # as CamVid's label_colors.txt
        "name, r, g, b\nfloor, 0, 0, 255\nwall, 255, 255, 0\nvoid, 0, 0, 0\n",
        "0 floor 0 0 255\n1 wall 255 255 0\n2 void 0 0 0\n",
        "# of the lab\nfloor 0 0 255\nwall 255 255 0\nunlabelled 0 0 0\n",
    ],
)
def test_tables_of_classes_are_read_in_the_ways_that_they_are_written(text, tmp_path):
    (tmp_path / "t.txt").write_text(text)
    table = read_classes("t.txt", tmp_path, "", [])
    assert table.classes.names == ("floor", "wall")
    assert table.classes.colours == ((0, 0, 255), (255, 255, 0))
    np.testing.assert_array_equal(table.of_ids(np.array([[0, 1, 2]], np.uint8), "x"), [[0, 1, 255]])


@pytest.mark.parametrize(
    ("text", "ignore", "words"),
    [
        ("0 a\n0 b\n", "", "a and b both have id 0"),
        ("0 a 1 2 3\n1 b 1 2 3\n", "", "a and b both have colour"),
        ("0 a\n1 b\n", "cc", "ignore names 'cc'"),
        ("0 a\n300 b\n", "", "t.txt:2: ids and colours are from 0 to 255"),
        ("0 a\n1 b 4 5\n", "", "t.txt:2: '1 b 4 5' is not NAME"),
        ("0 void\n", "", "0 classes of pixels"),
    ],
)
def test_tables_that_cannot_be_meant_are_refused(text, ignore, words, tmp_path):
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises((ConfigError, SourceError), match=words):
        read_classes("t.txt", tmp_path, ignore, [])


def test_ids_and_colours_outside_the_table_are_counted_by_value(tmp_path):
    (tmp_path / "classes.csv").write_text("0,floor,0,0,255\n1,wall,255,255,0\n")
    table = read_classes("classes.csv", tmp_path, "", [])
    write(tmp_path / "a.png", np.array([[0, 3, 3], [1, 8, 255]], np.uint8))
    with pytest.raises(
        ImageError, match=r"a.png: 3 pixels have ids .* lacks: 3 \(2\), 8 \(1\); add"
    ):
        PixelFile(str(tmp_path / "a.png"), table=table).load()
    write(tmp_path / "b.png", np.full((2, 2, 3), (1, 2, 3), np.uint8))
    with pytest.raises(ImageError, match=r"4 pixels have colours .* #030201 \(4\)"):
        PixelFile(str(tmp_path / "b.png"), table=table).load()
    ids = read_classes("floor,wall", tmp_path, "3,8", [])
    np.testing.assert_array_equal(
        PixelFile(str(tmp_path / "a.png"), table=ids).load(), [[0, 255, 255], [1, 255, 255]]
    )


def test_mask_folder_pairs_by_name_and_counts_what_has_no_partner(tmp_path):
    scene(tmp_path, count=6)
    (tmp_path / "labels/f5.png").unlink()
    write(tmp_path / "labels/other.png", np.zeros((24, 32), np.uint8))
    splits = open_dataset("mask_folder", tmp_path, classes="floor,wall", block_frames=1)
    assert len(splits.samples) == 5
    assert splits.labels_of(WORD) == ("floor", "wall")
    for sample in splits.samples:
        number = int(sample.name[-5])
        mask = pickle.loads(pickle.dumps(sample)).of(WORD).load()
        assert mask.shape == (24, 32) and mask.sum() == 24 * number
    notes = "\n".join(splits.notes)
    assert "1 frame skipped, which have no label images: images/f5.png" in notes.replace(
        "has", "have"
    )
    assert "1 file in" in notes and "is of no image: other.png" in notes


def test_mask_folder_honours_parts_and_tests_on_val_if_asked(tmp_path):
    scene(tmp_path, ("train", "val"))
    found = open_dataset("mask_folder", tmp_path, classes="floor,wall")
    assert [len(p) for p in (found.train, found.validation, found.test)] == [4, 4, 0]
    found = open_dataset(
        "mask_folder", tmp_path, classes="floor,wall", val_for="test", block_frames=1
    )
    assert [len(p) for p in (found.train, found.validation, found.test)] == [3, 1, 4]
    assert all(s.name.startswith("val/") for s in found.test)
    scene(tmp_path, ("test",))
    with pytest.raises(ConfigError, match="val_for is test, but there are images to test on too"):
        open_dataset("mask_folder", tmp_path, classes="floor,wall", val_for="test")


def test_mask_folder_says_what_is_missing(tmp_path):
    scene(tmp_path)
    with pytest.raises(SourceError, match="has no table of classes"):
        open_dataset("mask_folder", tmp_path)
    with pytest.raises(SourceError, match="has no folder of label images: it may be called annos"):
        open_dataset("mask_folder", tmp_path, classes="floor,wall", masks="annos")
    with pytest.raises(ConfigError, match="'tabel.csv': .*tabel.csv is no file"):
        open_dataset("mask_folder", tmp_path, classes="tabel.csv")


def test_fingerprint_follows_masks_and_their_scale(tmp_path):
    scene(tmp_path / "a")
    scene(tmp_path / "b")
    one, two = (
        open_dataset("mask_folder", tmp_path / n, classes="floor,wall", split="train") for n in "ab"
    )
    assert one.fingerprint("train") == two.fingerprint("train")
    write(tmp_path / "b/labels/f1.png", np.ones((24, 32), np.uint8))
    assert one.fingerprint("train") != two.fingerprint("train")
    file = str(tmp_path / "a/labels/f1.png")
    prints = {
        Splits(
            (Sample("x", None, None, None, "", one.train[0].source, truth={"image:depth": t}),),
            (),
            (),
        ).fingerprint("train")
        for t in (PixelFile(file), PixelFile(file, unit=0.5), PixelFile(file, none=(0,)))
    }
    assert len(prints) == 3


def test_seven_scenes_depth_is_in_metres_where_it_was_measured(tmp_path):
    seven_scenes(tmp_path / "room", 4)
    stored = np.full((24, 32), 1500, np.uint16)
    stored[0, 0], stored[0, 1] = 65535, 0
    write(tmp_path / "depth/frame-000001.depth.png", stored)
    splits = open_dataset("seven_scenes", tmp_path / "room", depth="../depth", split="train")
    truths = [s.of("image:depth") for s in splits.train]
    assert [t is not None for t in truths] == [False, True, False, False]
    metres = true_values(truths[1], "float32", 0)
    assert metres.dtype == np.float32 and metres[0, 0] == metres[0, 1] == 0
    np.testing.assert_allclose(metres[1:], 1.5)
    assert true_values(truths[1], "float16", np.nan).dtype == np.float16
    assert any("1 of 4 frames have depth" in note for note in splits.notes)
    with pytest.raises(SourceError, match="has no depth image of these frames"):
        open_dataset("seven_scenes", tmp_path / "room", depth="../elsewhere")
    (tmp_path / "depth/frame-000001.depth.png").rename(tmp_path / "room/frame-000002.depth.png")
    assert open_dataset("seven_scenes", tmp_path / "room", split="train").train[2].truth
    assert not open_dataset("seven_scenes", tmp_path / "room", depth="none").samples[2].truth


def test_depth_is_brought_to_the_pixels_that_show_it(tmp_path):
    seven_scenes(tmp_path / "room", 4)
    stored = np.full((24, 32), 2000, np.uint16)
    stored[10:14, 10:14] = 500  # a box in front of a wall
    stored[0, 0] = 65535
    write(tmp_path / "room/frame-000001.depth.png", stored)

    def opened(**options):
        splits = open_dataset("seven_scenes", tmp_path / "room", split="train", **options)
        return true_values(splits.train[1].of("image:depth"), "float32", np.nan), splits

    as_stored, _ = opened()
    same, _ = opened(camera_matrix="30,30,16,12", depth_camera="30,30,16,12,0")
    np.testing.assert_array_equal(same, as_stored)
    # A depth camera of twice the focal length, 0.1 m to the left.
    moved, splits = opened(camera_matrix="30,30,16,12", depth_camera="60,60,16,12,-0.1")
    assert any("brought to the image's pixels" in note for note in splits.notes)
    # The wall's corner (31, 23) is at x = 2 * 15 / 60 - 0.1 = 0.4 and y = 2 * 11 / 60 m.
    column, row = round(30 * 0.4 / 2 + 16), round(30 * (11 / 60) + 12)
    assert np.isfinite(moved[row, column])
    assert np.isnan(moved[:, column + 1 :]).all() and np.isnan(moved[row + 1 :]).all()
    # The box spans x = 0.5 (10 to 13 - 16) / 60 - 0.1 m, and hides the wall.
    columns = {round(30 * (0.5 * (c - 16) / 60 - 0.1) / 0.5 + 16) for c in range(10, 14)}
    rows = {round(30 * (r - 12) / 60 + 12) for r in range(10, 14)}
    box = np.argwhere(moved == np.float32(0.5))
    assert {tuple(p) for p in box} == {(r, c) for r in rows for c in columns}
    prints = {splits.fingerprint("train"), opened()[1].fingerprint("train")}
    assert len(prints) == 2
    for wrong in ("585,585,320,240", "0,585,320,240,0", "585,585,320,240,nan"):
        with pytest.raises(ConfigError, match="depth_camera"):
            opened(depth_camera=wrong)
    with pytest.raises(ConfigError, match="depth_camera has no effect"):
        opened(depth="none", depth_camera="585,585,320,240,0")


@pytest.mark.slow
def test_edges_of_registered_kitchen_depth_lie_on_edges_of_the_image(data_dir):
    def share(**options):
        """The image's mean gradient at edges of depth, over its mean."""
        found = []
        kitchen = open_dataset(
            "seven_scenes", data_dir / "kitchen", depth="../kitchen_depth", **options
        )
        for sample in kitchen.train[20:120:40]:
            depth = true_values(sample.of("image:depth"), "float32", np.nan)
            grey = cv2.cvtColor(sample.source.load(), cv2.COLOR_RGB2GRAY).astype(np.float32)
            grey = cv2.GaussianBlur(grey, (0, 0), 2)
            slope = np.hypot(*np.gradient(grey))
            with np.errstate(invalid="ignore"):
                edges = np.abs(np.diff(depth, axis=1)) > 0.2
            found.append(slope[:, 1:][edges].mean() / slope.mean())
        return np.mean(found)

    assert share(depth_camera="585,585,320,240,-0.025") > 1.3 * share()


def test_camvid_and_kitchen_depth_have_their_counts(data_dir):
    names = "sky,building,pole,road,pavement,tree,sign,fence,car,pedestrian,bicyclist,void"
    camvid = open_dataset("mask_folder", data_dir / "camvid", classes=names, val_for="test")
    assert len(camvid.train) + len(camvid.validation) == 367 and len(camvid.test) == 101
    mask = camvid.test[0].of(WORD).load()
    assert mask.shape == (360, 480) and set(np.unique(mask)) <= {*range(11), 255}
    kitchen = open_dataset("seven_scenes", data_dir / "kitchen", depth="../kitchen_depth")
    assert [sum(bool(s.truth) for s in kitchen.split(n)) for n in ("train", "validation", "test")] == [
        250, 50, 100,
    ]  # fmt: skip


def test_depth_folder_takes_unit_and_invalid_numbers(tmp_path):
    for i in range(3):
        write_image(tmp_path / f"images/{i}.jpg", i)
        stored = np.full((24, 32), 200 + i, np.uint16)
        stored[0, 0] = 9
        write(tmp_path / f"depth/{i}.png", stored)
    splits = open_dataset("depth_folder", tmp_path, unit_m=0.01, invalid="0,9", split="train")
    values = true_values(splits.train[2].of("image:depth"), "float32", np.nan)
    assert np.isnan(values[0, 0])
    np.testing.assert_allclose(values[1:], 2.02, rtol=1e-6)
    metres = np.full((24, 32), 0.75, np.float32)
    metres[3, 3] = np.inf
    (tmp_path / "depth/2.png").unlink()
    write(tmp_path / "depth/2.tiff", metres)
    splits = open_dataset("depth_folder", tmp_path, unit_m=1, split="train")
    values = true_values(splits.train[2].of("image:depth"), "float32", -1)
    assert values[3, 3] == -1 and values[5, 5] == 0.75
    with pytest.raises(ConfigError, match="invalid is 'none'"):
        open_dataset("depth_folder", tmp_path, invalid="none")
    with pytest.raises(ConfigError, match="unit_m is 0"):
        open_dataset("depth_folder", tmp_path, unit_m=0)


@pytest.mark.parametrize("layout", ["depth.txt", "depth first", "depth last"])
def test_tum_takes_the_depth_of_the_nearest_stamp(layout, tmp_path):
    tum(tmp_path, 4)
    stamps = [f"{1305031102 + i / 10:.6f}" for i in range(4)]
    late = [f"{1305031102 + i / 10 + (0.5 if i == 1 else 0.012):.6f}" for i in range(4)]
    for i in (0, 1, 3):
        write(tmp_path / f"depth/{late[i]}.png", np.full((24, 32), 5000 * (i + 1), np.uint16))
    if layout == "depth.txt":
        lines = [f"{t} depth/{t}.png" for t in sorted(late[i] for i in (0, 1, 3))]
        (tmp_path / "depth.txt").write_text("# depth maps\n" + "\n".join(lines) + "\n")
    else:
        (tmp_path / "rgb.txt").unlink()
        pairs = [
            (f"{s} rgb/{s}.png", f"{d} depth/{d}.png") for s, d in zip(stamps, late, strict=True)
        ]
        lines = [f"{b} {a}" if layout == "depth first" else f"{a} {b}" for a, b in pairs]
        (tmp_path / "associations.txt").write_text("\n".join(lines) + "\n")
    splits = open_dataset("tum_rgbd", tmp_path, split="train")
    metres = [
        None if (t := s.of("image:depth")) is None else float(true_values(t, "float32", 0)[5, 5])
        for s in splits.train
    ]
    # A list of pairs says itself what belongs together; depth.txt needs the nearest.
    assert metres == [1.0, 2.0 if layout != "depth.txt" else None, None, 4.0]
    bare = open_dataset("tum_rgbd", tmp_path, split="train", depth=False)
    assert not any(s.truth for s in bare.train)


COLOURS = {"Sky": (128, 128, 128), "Wall": (64, 192, 0), "Road": (128, 64, 128), "Void": (0, 0, 0)}


def published_camvid(root, names):
    for i, name in enumerate(names):
        write_image(root / f"701_StillsRaw_full/{name}.png", i)
        mask = np.zeros((24, 32, 3), np.uint8)
        for k, colour in enumerate(COLOURS.values()):
            mask[:, 8 * k : 8 * k + 8] = colour
        write(root / f"LabeledApproved_full/{name}_L.png", mask[..., ::-1])
    lines = [f"{r} {g} {b}\t{name}" for name, (r, g, b) in COLOURS.items()]
    # The eleven need one of each, whose colours nothing here has.
    for k, name in enumerate(
        ("Column_Pole", "Sidewalk", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist")
    ):
        lines.append(f"{k + 1} 2 3\t\t{name}")
    (root / "label_colors.txt").write_text("\n".join(lines) + "\n")
    return root


def test_camvid_as_published_has_eleven_classes_and_official_parts(tmp_path):
    names = [
        "0001TP_006690",
        "0001TP_008550",
        "0006R0_f00930",
        "0016E5_07959",
        "0016E5_07980",
        "Seq05VD_f00000",
    ]
    splits = open_dataset("camvid", published_camvid(tmp_path, names))
    parts = [
        [s.name.split("/")[1][:-4] for s in p]
        for p in (splits.train, splits.validation, splits.test)
    ]
    assert parts == [
        ["0001TP_006690", "0006R0_f00930", "0016E5_07980"],
        ["0016E5_07959"],
        ["0001TP_008550", "Seq05VD_f00000"],
    ]
    classes = splits.pixel_classes[WORD]
    assert classes.names[:4] == ("sky", "building", "pole", "road") and len(classes.names) == 11
    assert classes.colours[1] == (64, 192, 0)
    mask = splits.train[0].of(WORD).load()
    assert [mask[0, 8 * k] for k in range(4)] == [0, 1, 3, 255]
    assert {s.sequence for s in splits.train} == {"0001TP", "0006R0", "0016E5"}
    every = open_dataset("camvid", tmp_path, classes="31")
    assert every.pixel_classes[WORD].names[:3] == ("Sky", "Wall", "Road")


def test_official_parts_of_camvid_are_those_of_the_frames_at_hand(data_dir):
    from robot_vision.datasets.formats.camvid import _role

    splits = open_dataset("camvid", data_dir / "camvid")
    assert (len(splits.train), len(splits.validation)) == (367, 101)
    assert {_role(s) for s in splits.train} == {"train"}
    assert {_role(s) for s in splits.validation} == {"validation"}


def test_classes_without_colours_look_as_in_what_a_model_says(tmp_path):
    splits = open_dataset("mask_folder", scene(tmp_path), classes="floor,wall", split="train")
    masks = truth_sheet(splits, WORD)[-116:-4].reshape(-1, 3)  # the second row's
    colours = palette(SegmentationSpec(labels=("floor", "wall")))
    for i, wanted in enumerate(colours[:2]):
        count = (masks == wanted).all(axis=1).sum()
        assert count > 500, (i, wanted)


def test_inspect_shows_classes_of_pixels_and_what_cannot_be_used(tmp_path, capsys):
    scene(tmp_path / "set", count=9)  # of 9 x 32 columns 36 are class 1
    write(tmp_path / "set/labels/f8.png", np.zeros((12, 16), np.uint8))
    options = ["--option", "classes=floor,wall,roof", "--option", "block_frames=1", "--json"]
    arguments = ["data", "inspect", "mask_folder", str(tmp_path / "set"), *options]
    assert main([*arguments, "--output", str(tmp_path / "o")]) == 0
    found = json.loads(capsys.readouterr().out)["pixels"][WORD]
    assert sum(found["samples"].values()) == found["looked_at"] == 9
    assert found["classes"] == {"floor": 1 - 28 / 256, "wall": 28 / 256, "roof": 0.0}
    assert found["images"] == {"floor": 8, "wall": 7, "roof": 0} and found["without"] == 0
    (wrong,) = found["unreadable"]
    assert "f8.png has 16 x 12 pixels, and its image" in wrong and "32 x 24" in wrong
    sheet = cv2.imread(str(tmp_path / "o/image_segmentation.png"))
    assert sheet.shape[1] > 1000
    assert main([*arguments[:-1], "--output", str(tmp_path / "o")]) == 0
    shown = capsys.readouterr().out
    assert "no pixel of those decoded is roof" in shown and "1 of 9 cannot be used" in shown


def test_inspect_shows_distances(tmp_path, capsys):
    for i in range(4):
        write_image(tmp_path / f"set/images/{i}.png", i)
        stored = np.full((24, 32), 1000 * (i + 1), np.uint16)
        stored[:6] = 0
        write(tmp_path / f"set/depth/{i}.png", stored)
    arguments = [
        "data",
        "inspect",
        "depth_folder",
        str(tmp_path / "set"),
        "--output",
        str(tmp_path / "o"),
    ]
    assert main(arguments) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "25.0% of the pixels say nothing, the others 2.5 (median; 90% from 1 to 4)" in text
    assert (tmp_path / "o/image_depth.png").exists()
