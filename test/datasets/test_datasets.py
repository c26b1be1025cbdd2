"""Data sets in general: samples, options, splits, image folders."""

import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny_datasets import (
    cambridge,
    colmap,
    euroc,
    gsv_cities,
    image_folder,
    kitti,
    msls,
    seven_scenes,
    transforms,
    tum,
    twelve_scenes,
    write_image,
)

from robot_vision.datasets import (
    DATASETS,
    SPLIT_NAMES,
    Sample,
    Splits,
    dataset_options,
    open_dataset,
)
from robot_vision.datasets.image_files import FileImage
from robot_vision.datasets.inspection import content_notes
from robot_vision.datasets.registry import kinds_of
from robot_vision.datasets.splitting import BlockOptions, divide, draw_stratified, missing_note
from robot_vision.errors import ConfigError, ImageError, SourceError
from robot_vision.recordings.image_formats import missing_decoder


def samples_of(counts, label=None):
    """Samples without images: `counts[sequence]` in each."""
    return [
        Sample(f"{name}/{i}", label or name, None, i, name, FileImage(f"{name}/{i}.png"))
        for name, count in counts.items()
        for i in range(count)
    ]


def names(samples):
    return [sample.name for sample in samples]


# Registry and options


def test_open_dataset_names_near_kind_when_kind_is_unknown(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'seven_scenes'"):
        open_dataset("sevenscenes", tmp_path)


@pytest.mark.parametrize("kind", DATASETS)
def test_open_dataset_names_near_option_when_option_is_unknown(kind, tmp_path):
    with pytest.raises(ConfigError, match="'validaton'.*did you mean 'validation'"):
        open_dataset(kind, tmp_path, validaton=0.1)


@pytest.mark.parametrize("kind", DATASETS)
def test_open_dataset_says_so_when_path_is_absent_or_empty(kind, tmp_path):
    with pytest.raises(SourceError, match="does not exist"):
        open_dataset(kind, tmp_path / "absent")
    with pytest.raises(SourceError, match=str(tmp_path)):
        open_dataset(kind, tmp_path)


MAKERS = {
    "seven_scenes": lambda p: seven_scenes(p, 2),
    "twelve_scenes": lambda p: twelve_scenes(p, 3, 1),
    "cambridge": lambda p: cambridge(p, 2, 1),
    "tum_rgbd": lambda p: tum(p, 2),
    "transforms_json": lambda p: transforms(p, 2),
    "colmap": lambda p: colmap(p, 2),
    "euroc": lambda p: euroc(p, 2),
    "kitti": lambda p: kitti(p, 2),
    "msls": lambda p: msls(p, "cph", 55.7, 12.5, 347000.0),
    "gsv_cities": lambda p: gsv_cities(p, "Rio", 2, -22.9, -43.2),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_data_set_shows_its_kind_to_who_gives_another(kind, tmp_path):
    MAKERS[kind](tmp_path)
    assert kinds_of(tmp_path)[0] == kind
    assert open_dataset(kind, tmp_path).samples
    for other in ("rosbag", "cambridge" if kind != "cambridge" else "kitti"):
        with pytest.raises(SourceError, match=f"; this looks like a .*{kind}"):
            open_dataset(other, tmp_path)


def test_a_folder_of_images_with_a_table_or_poses_is_said_to_have_them(tmp_path):
    image_folder(tmp_path, {"a": 3, "b": 3})
    assert not any("looks like" in note for note in open_dataset("image_folder", tmp_path).notes)
    (tmp_path / "labels.csv").write_text("file,label\n")
    notes = open_dataset("image_folder", tmp_path).notes
    assert any("looks like a labels_csv data set too" in note for note in notes)


@pytest.mark.parametrize("kind", DATASETS)
def test_dataset_options_have_a_text_and_a_default_that_is_allowed(kind, tmp_path):
    options = dataset_options(kind)
    assert all(text for _, text in options.values())
    with pytest.raises(SourceError):  # and not ConfigError: every default passes as text
        open_dataset(
            kind, tmp_path, **{name: str(default) for name, (default, _) in options.items()}
        )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("abc", "use a number"),
        (-0.1, "must be from 0 to 0.9"),
        ("nan", "must be"),
        (True, "use a number"),
    ],
)
def test_option_refuses_value_out_of_range(value, message, tmp_path):
    with pytest.raises(ConfigError, match=f"validation.*{message}"):
        open_dataset("image_folder", tmp_path, validation=value)


def test_option_refuses_unknown_choice(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'blocks'"):
        open_dataset("seven_scenes", tmp_path, split="block")


# Splitting


@settings(max_examples=60)
@example(counts=[3], block=1, modulo=3, validation=0.0, gap=2, seed=0)  # a gap longer than a block
@given(
    counts=st.lists(st.integers(1, 120), min_size=1, max_size=4),
    block=st.integers(1, 30),
    modulo=st.integers(1, 5),
    validation=st.floats(0, 0.9),
    gap=st.integers(0, 5),
    seed=st.integers(0, 5),
)
def test_divide_puts_each_frame_in_one_split_and_blocks_whole(
    counts, block, modulo, validation, gap, seed
):
    samples = samples_of({f"s{i}": n for i, n in enumerate(counts)})
    options = BlockOptions(
        block_frames=block,
        test_modulo=modulo,
        test_remainder=modulo - 1,
        validation=validation,
        gap_frames=gap,
        seed=seed,
    )
    train, val, test = divide(samples, options)
    together = names(train) + names(val) + names(test)
    assert len(set(together)) == len(together)
    if gap == 0:
        assert len(together) == len(samples)
    expected = [s.name for s in samples if (s.stamp_ns // block) % modulo == modulo - 1]
    assert names(test) == expected
    # Order is kept, validation comes in whole blocks, and a gap holds on both sides.
    assert names(val) == [s.name for s in samples if s.name in set(names(val))]
    full = Counter((s.sequence, s.stamp_ns // block) for s in samples)
    for key, n in Counter((s.sequence, s.stamp_ns // block) for s in val).items():
        assert n == full[key]
    held_out = {(s.sequence, s.stamp_ns) for s in val + test}
    for s in train:
        assert all((s.sequence, s.stamp_ns + d) not in held_out for d in range(-gap, gap + 1))


def test_divide_takes_named_sequences_as_test():
    samples = samples_of({"a": 10, "b": 10})
    train, val, test = divide(samples, BlockOptions(test_sequences="b", validation=0))
    assert (names(train), val, names(test)) == (names(samples[:10]), [], names(samples[10:]))
    with pytest.raises(ConfigError, match="'c'.*use one of a, b"):
        divide(samples, BlockOptions(test_sequences="c"))


@pytest.mark.parametrize(
    ("frames", "sizes", "missing"),
    [
        (40, (40, 0, 0), "validation or test"),
        (140, (90, 50, 0), "any test"),
        (200, (100, 50, 50), ""),
        (400, (250, 50, 100), ""),
    ],
)
def test_a_short_recording_is_validated_on_if_it_can_be(frames, sizes, missing):
    train, val, test = divide(samples_of({"a": frames}), BlockOptions(seed=1))
    assert (len(train), len(val), len(test)) == sizes
    note = missing_note(BlockOptions(), val, test)
    assert missing in note and bool(note) == bool(missing)
    assert missing_note(BlockOptions(split="train"), [], []) == ""
    assert missing_note(BlockOptions(validation=0, test_remainder=-1), [], []) == ""


def test_divide_refuses_official_split_where_there_is_none():
    with pytest.raises(ConfigError, match="no split file: use blocks"):
        divide(samples_of({"a": 3}), BlockOptions(split="official"))


@settings(max_examples=60)
@given(
    counts=st.dictionaries(st.sampled_from("abcd"), st.integers(1, 60), min_size=1),
    fraction=st.floats(0.01, 0.9),
    seed=st.integers(0, 9),
)
def test_draw_stratified_takes_the_same_part_of_each_class(counts, fraction, seed):
    samples = samples_of(counts)
    kept, drawn = draw_stratified(samples, fraction, seed)
    assert sorted(names(kept) + names(drawn)) == sorted(names(samples))
    per_class = Counter(s.label for s in drawn)
    for label, n in counts.items():
        assert abs(per_class[label] - fraction * n) <= 1
        assert per_class[label] < n
    again = draw_stratified(samples, fraction, seed)
    assert names(again[1]) == names(drawn)


def test_draw_stratified_keeps_units_together():
    samples = samples_of({"a": 60, "b": 60})
    kept, drawn = draw_stratified(samples, 0.3, 1, lambda s: s.stamp_ns // 10)
    walks = {(s.label, s.stamp_ns // 10) for s in kept}
    assert drawn and not walks & {(s.label, s.stamp_ns // 10) for s in drawn}


# Image folders


def test_image_folder_honours_train_val_and_test_folders(tmp_path):
    image_folder(tmp_path, {"train/cat": 3, "train/dog": 4, "val/cat": 2, "test/dog": 1})
    splits = open_dataset("image_folder", tmp_path)
    assert [len(splits.split(s)) for s in ("train", "validation", "test")] == [7, 2, 1]
    assert splits.labels == ("cat", "dog")
    assert {s.label for s in splits.test} == {"dog"}
    assert splits.train[0].name == "train/cat/0.png"


def test_image_folder_draws_what_has_no_folder(tmp_path):
    image_folder(tmp_path, {"cat": 20, "dog": 40})
    splits = open_dataset("image_folder", tmp_path, validation=0.25, test=0.2)
    assert Counter(s.label for s in splits.test) == {"cat": 4, "dog": 8}
    assert Counter(s.label for s in splits.validation) == {"cat": 4, "dog": 8}
    assert len(splits.samples) == 60
    other = open_dataset("image_folder", tmp_path, validation=0.25, test=0.2, seed=1)
    assert names(other.test) != names(splits.test)


def test_image_folder_keeps_groups_and_blocks_together(tmp_path):
    for room in ("hall", "lab"):
        for walk in range(6):
            for i in range(3):
                write_image(tmp_path / room / f"walk{walk}_{i}.png", walk * 10 + i)
    grouped = open_dataset("image_folder", tmp_path, group=r"(walk\d+)_", test=0.3)
    walks = [{s.name.rsplit("_", 1)[0] for s in grouped.split(n)} for n in ("train", "test")]
    assert walks[1] and not walks[0] & walks[1]
    blocks = open_dataset(
        "image_folder", tmp_path, split="blocks", block_frames=6, test=0.34, validation=0
    )
    positions = [[int(s.name.split("walk")[1][0]) // 2 for s in blocks.test if s.label == "lab"]]
    assert len(blocks.test) == 12 and len(set(positions[0])) == 1
    with pytest.raises(ConfigError, match="does not match the file name"):
        open_dataset("image_folder", tmp_path, group="run(.)")
    with pytest.raises(ConfigError, match="not a regular expression"):
        open_dataset("image_folder", tmp_path, group="(")


def test_image_folder_notes_what_is_wrong(tmp_path):
    image_folder(tmp_path, {"train/cat": 3, "test/cow": 1})
    (tmp_path / "train/cat/empty.jpg").touch()
    (tmp_path / "train/cat/notes.txt").write_text("x")
    (tmp_path / "train/nothing").mkdir()
    write_image(tmp_path / "train/loose.png", 1)
    splits = open_dataset("image_folder", tmp_path, validation=0)
    text = "\n".join(splits.notes)
    assert "1 image file is empty" in text and "empty.jpg" in text
    assert "1 file under" in text
    assert "nothing has no image" in text
    assert "loose.png" in text
    assert "one class only (cat)" in text
    assert "test has classes that train lacks: cow" in text
    bad = next(s for s in splits.train if s.name.endswith("empty.jpg"))
    with pytest.raises(ImageError, match="empty.jpg"):
        bad.source.load()


def test_class_called_train_is_a_class_beside_others(tmp_path):
    image_folder(tmp_path, {"car": 6, "bus": 6, "train/2019": 6, "train/2020": 6})
    splits = open_dataset("image_folder", tmp_path)
    assert splits.labels == ("bus", "car", "train")
    assert len(splits.samples) == 24
    assert any("folder train is treated as a class, since bus, car are" in n for n in splits.notes)


def test_folders_and_images_beside_a_split_are_counted(tmp_path):
    counts = {"train/cat": 3, "train/dog": 3, "test/cat": 2, "extra/cat": 4, "Training/dog": 5}
    image_folder(tmp_path, counts)
    write_image(tmp_path / "loose.png", 1)
    write_image(tmp_path / "train/.thumbs/1.png", 1)
    (tmp_path / "train/labels.csv").touch()
    splits = open_dataset("image_folder", tmp_path)
    assert len(splits.samples) == 8
    text = "\n".join(splits.notes)
    assert "4 images are in the folder extra, which is none of train, test" in text
    assert "5 images are in the folder Training" in text
    assert f"1 image lies in {tmp_path} itself" in text
    assert f"1 hidden folder with images lies in {tmp_path / 'train'} itself" in text
    assert f"1 file that is no image lies in {tmp_path / 'train'} itself" in text
    assert "test has no image of 1 class: dog" in text


def test_classes_of_two_spellings_are_joined_or_named(tmp_path):
    composed, apart = "K\u00fcche", "Ku\u0308che"
    counts = {f"train/{composed}": 3, f"train/{apart}": 2, "train/Hall Way": 3}
    image_folder(tmp_path, {**counts, f"test/{apart}": 2, "test/hall_way": 4})
    splits = open_dataset("image_folder", tmp_path)
    assert splits.labels == ("Hall Way", composed)
    assert Counter(s.label for s in splits.test) == {composed: 2, "hall_way": 4}
    text = "\n".join(splits.notes)
    assert f"2 folders in {tmp_path / 'train'} are named {composed}: they are one class" in text
    assert "'Hall Way' and 'hall_way' are classes of their own" in text
    assert "test has classes that train lacks: hall_way (4 images" in text


def test_splits_below_the_classes_are_named(tmp_path):
    image_folder(tmp_path, {"cat/train": 4, "cat/test": 4, "dog/train": 4, "dog/test": 4})
    notes = open_dataset("image_folder", tmp_path).notes
    assert sum("the folders test, train in class" in note for note in notes) == 2


def test_image_folder_refuses_test_without_train(tmp_path):
    image_folder(tmp_path, {"test/cat": 1})
    with pytest.raises(SourceError, match="has no train folder"):
        open_dataset("image_folder", tmp_path)


@pytest.mark.skipif(not missing_decoder("heic"), reason="there is a decoder of HEIC here")
def test_images_of_a_format_without_decoder_are_counted_with_the_remedy(tmp_path):
    image_folder(tmp_path, {"cat": 4, "dog": 4})
    for i in range(2):
        (tmp_path / f"cat/IMG_{i}.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    splits = open_dataset("image_folder", tmp_path)
    assert len(splits.samples) == 10
    assert any(
        "2 image files cannot be read (HEIC needs a decoder: pip install pillow-heif" in note
        for note in splits.notes
    )
    with pytest.raises(ImageError, match=r"IMG_0.HEIC: HEIC needs a decoder"):
        FileImage(str(tmp_path / "cat/IMG_0.HEIC")).load()


def test_file_image_loads_rgb_and_names_damaged_file(tmp_path):
    expected = write_image(tmp_path / "a.png", 5)
    source = pickle.loads(pickle.dumps(FileImage(str(tmp_path / "a.png"))))
    image = source.load()
    np.testing.assert_array_equal(image, expected)
    assert image.flags.writeable and image.flags.c_contiguous
    (tmp_path / "b.jpg").write_bytes(b"\xff\xd8\xff nonsense")
    (tmp_path / "c.bmp").write_bytes(b"BM nonsense")
    for name in ("b.jpg", "c.bmp", "absent.png"):
        with pytest.raises(ImageError, match=name):
            FileImage(str(tmp_path / name)).load()


# Identity


def test_fingerprint_follows_content_label_and_pose_but_not_place(tmp_path):
    image_folder(tmp_path / "one", {"train/cat": 3, "train/dog": 3})
    image_folder(tmp_path / "two", {"train/cat": 3, "train/dog": 3})
    one, two = (
        open_dataset("image_folder", tmp_path / n, validation=0, test=0) for n in ("one", "two")
    )
    assert one.fingerprint("train") == two.fingerprint("train")
    assert one.content_hashes("train") == two.content_hashes("train")
    write_image(tmp_path / "two/train/cat/1.png", 99)
    two = open_dataset("image_folder", tmp_path / "two", validation=0, test=0)
    assert one.fingerprint("train") != two.fingerprint("train")
    assert len(one.content_hashes("train") & two.content_hashes("train")) == 5
    s = one.train[0]
    moved = Sample(s.name, s.label, np.eye(4), None, s.sequence, s.source)
    renamed = Sample(s.name, "cow", None, None, s.sequence, s.source)
    prints = {Splits((x,), (), ()).fingerprint("train") for x in (s, moved, renamed)}
    assert len(prints) == 3


def test_images_in_two_splits_or_with_two_labels_are_counted(tmp_path):
    image_folder(tmp_path, {"train/cat": 4, "train/dog": 4, "val/cat": 2, "test/cat": 3})
    for copy in ("val/cat/a.png", "test/cat/b.png", "test/cat/c.png"):
        (tmp_path / copy).write_bytes((tmp_path / "train/cat/1.png").read_bytes())
    (tmp_path / "train/dog/d.png").write_bytes((tmp_path / "train/cat/2.png").read_bytes())
    (tmp_path / "train/dog/empty.png").touch()
    (tmp_path / "test/cat/empty.png").touch()
    notes = content_notes(open_dataset("image_folder", tmp_path))
    assert [n.split(",")[0] for n in notes] == [
        "2 of 6 test images are",
        "1 of 3 validation images are",
        "2 of 6 test images are",
        "validation lacks images of 1 of 2 classes (dog): what is measured on validation says nothing of it",
        "test lacks images of 1 of 2 classes (dog): what is measured on test says nothing of it",
        "1 image has more than one label",
    ]
    assert "also in train, such as train/cat/1.png = test/cat/b.png" in notes[0]
    assert "also in validation" in notes[2]
    assert "train/cat/2.png = train/dog/d.png: one of them is wrong" in notes[5]


def test_samples_are_cheap_to_hold():
    sample = samples_of({"a": 1})[0]
    assert not hasattr(sample, "__dict__") and not hasattr(sample.source, "__dict__")
    assert len(pickle.dumps(sample)) < 500


# Real data


@pytest.mark.slow
def test_traffic_lights_have_their_counts(data_dir):
    splits = open_dataset("image_folder", data_dir / "traffic_lights", validation=0)
    assert Counter(s.label for s in splits.train) == {"red": 723, "green": 429, "yellow": 35}
    assert Counter(s.label for s in splits.test) == {"red": 181, "green": 107, "yellow": 9}
    drawn = open_dataset("image_folder", data_dir / "traffic_lights", validation=0.2)
    assert Counter(s.label for s in drawn.validation) == {"red": 145, "green": 86, "yellow": 7}
    assert names(drawn.test) == names(splits.test)


def test_blocks_of_few_files_still_give_something_to_test_on(tmp_path):
    for room in ("hall", "lab"):
        for i in range(12):
            write_image(tmp_path / room / f"{i}.png", i)
    splits = open_dataset("image_folder", tmp_path, split="blocks", block_frames=4)
    counts = [Counter(s.label for s in splits.split(n)) for n in SPLIT_NAMES]
    assert counts == [{"hall": 4, "lab": 4}] * 3
    one = open_dataset("image_folder", tmp_path, split="blocks", block_frames=50)
    assert [len(one.split(n)) for n in SPLIT_NAMES] == [24, 0, 0]
    none = open_dataset("image_folder", tmp_path, split="blocks", block_frames=4, test=0)
    assert len(none.test) == 0


def test_blocks_of_many_short_walks_leave_most_to_train_on(tmp_path):
    for room in ("hall", "lab"):
        for i in range(40):
            write_image(tmp_path / room / f"walk {i // 2}" / f"{i}.png", i)
    splits = open_dataset("image_folder", tmp_path, split="blocks")
    counts = [Counter(s.label for s in splits.split(n)) for n in SPLIT_NAMES]
    assert counts == [{"hall": 28, "lab": 28}, {"hall": 6, "lab": 6}, {"hall": 6, "lab": 6}]
