"""Image files of people: their format by content, which way up they lie, and what a folder holds."""

from __future__ import annotations

import functools
import io
import json
import os

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, features

from robot_vision.cli import main
from robot_vision.datasets import open_dataset
from robot_vision.datasets.image_files import FileImage
from robot_vision.errors import ImageError
from robot_vision.images.decode import image_size, to_rgb
from robot_vision.images.orientation import orientation_of, upright
from robot_vision.images.several_pictures import holds_several
from robot_vision.messages.serialized import read_compressed_image
from robot_vision.recordings import open_source
from robot_vision.recordings.files import find_images, image_notes, upright_message
from robot_vision.recordings.image_formats import missing_decoder, read_image
from robot_vision.ros.player.playback import Playback

# Four quarters of four colours: each of the eight orientations looks different.
QUARTERS = np.zeros((48, 64, 3), np.uint8)
QUARTERS[:24, :32], QUARTERS[:24, 32:] = (250, 10, 10), (10, 240, 10)
QUARTERS[24:, :32], QUARTERS[24:, 32:] = (10, 10, 230), (220, 220, 20)
TURNED = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")


def encoded(form: str, orientation: int = 1, image: np.ndarray = QUARTERS, **options) -> bytes:
    """A file as Pillow writes it, pixels as stored and EXIF's number."""
    if form in ("AVIF", "GIF", "WEBP", "TIFF") and missing_decoder(form.lower()):
        pytest.skip(missing_decoder(form.lower()))
    if form == "AVIF" and not features.check("avif"):
        pytest.skip("Pillow cannot write AVIF here")
    if orientation != 1:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, form, **options)
    return buffer.getvalue()


def by_pillow(data: bytes) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


def alike(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and bool(np.abs(a.astype(int) - b).mean() < 8)


@functools.cache
def sideways(form: str) -> bytes:
    more = {"save_all": True, "append_images": [Image.fromarray(QUARTERS[::-1])]}
    several = form in ("PNG", "WEBP", "TIFF", "GIF")  # Pillow crashes at a turned AVIF of two
    return encoded(form, 1 if form == "GIF" else 6, **(more if several else {}))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", TURNED)
def test_file_is_turned_upright_as_pillow_turns_it(tmp_path, form, orientation):
    data = encoded(form, orientation)
    (tmp_path / "a.jpg").write_bytes(data)
    image = FileImage(str(tmp_path / "a.jpg")).load()
    assert alike(image, by_pillow(data)) and image.flags.writeable and image.flags.c_contiguous
    assert image_size(read_image(tmp_path / "a.jpg")) == image.shape[:2]
    assert alike(FileImage(str(tmp_path / "a.jpg"), turn=False).load(), QUARTERS)


@pytest.mark.parametrize("orientation", [3, 6, 7])
def test_reduced_jpeg_is_as_large_as_asked_after_its_turn(tmp_path, orientation):
    big = cv2.resize(QUARTERS, (640, 480), interpolation=cv2.INTER_NEAREST)
    (tmp_path / "a.jpg").write_bytes(encoded("JPEG", orientation, big))
    upright_shape = (640, 480) if orientation > 4 else (480, 640)
    least = (upright_shape[0] // 4, upright_shape[1] // 4)
    image = FileImage(str(tmp_path / "a.jpg")).load(least)
    assert image.shape[:2] == least
    assert alike(
        cv2.resize(image, upright_shape[::-1]), by_pillow((tmp_path / "a.jpg").read_bytes())
    )


@pytest.mark.parametrize("kind", ["I", "L"])
def test_orientation_is_read_in_both_byte_orders_behind_other_segments_and_after_the_pixels(kind):
    order, magic = ("<", b"II*\0") if kind == "I" else (">", b"MM\0*")
    number = {"<": "little", ">": "big"}[order]
    tiff = magic + (8).to_bytes(4, number) + (1).to_bytes(2, number)
    tiff += (0x0112).to_bytes(2, number) + (3).to_bytes(2, number) + (1).to_bytes(4, number)
    tiff += (6).to_bytes(2, number) + b"\0\0" + bytes(4)
    exif = b"Exif\0\0" + tiff
    comment = b"\xff\xfe" + (60_002).to_bytes(2, "big") + bytes(60_000)
    plain = encoded("JPEG")
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    assert orientation_of(plain[:2] + comment + segment + plain[2:]) == 6
    png = encoded("PNG")
    chunk = len(tiff).to_bytes(4, "big") + b"eXIf" + tiff + bytes(4)
    assert orientation_of(png[:-12] + chunk + png[-12:]) == 6


@settings(max_examples=100)
@given(
    form=st.sampled_from((*TURNED, "GIF")),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=20),
    end=st.integers(0, 400),
)
def test_looks_at_damaged_files_are_no_errors(form, changes, end):
    data = bytearray(sideways(form))
    for at, value in changes:
        data[at % len(data)] = value
    assert 1 <= orientation_of(bytes(data[: len(data) - end])) <= 8
    assert holds_several(form.lower(), bytes(data[: len(data) - end])) in (False, True)


def test_message_of_a_camera_is_not_turned():
    class Message:  # as rclpy's, which has no orientation
        format, data = "jpeg", encoded("JPEG", 6)

    assert alike(to_rgb(Message()), QUARTERS)


def test_infer_and_player_get_files_upright_and_say_so(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.jpg").write_bytes(encoded("JPEG", 1 if i == 0 else 6))
    with open_source(tmp_path) as source:
        frames = list(source)
    assert [to_rgb(f.message).shape for f in frames] == [(48, 64, 3), (64, 48, 3), (64, 48, 3)]
    (note,) = source.notes
    assert note.startswith("2 image files lie on their side or head by their EXIF orientation")
    for frame in frames:  # what is published has no orientation left
        sent = upright_message(frame.message)
        assert orientation_of(bytes(sent.data)) == 1 and sent.orientation == 1
        assert alike(to_rgb(sent), to_rgb(frame.message))


def test_player_publishes_every_file_on_a_topic_of_its_form(tmp_path):
    (tmp_path / "0.jpg").write_bytes(encoded("JPEG", 6))
    (tmp_path / "1.jpg").write_bytes(encoded("BMP"))
    (tmp_path / "2.bmp").write_bytes(encoded("PNG"))
    (tmp_path / "3.jpg").write_text("<html>404</html>")
    playback = Playback(open_source(tmp_path))
    items = list(playback)
    assert [item.topic.rpartition("/")[2] for item in items] == [
        "compressed",
        "image_raw",
        "compressed",
        "compressed",
    ]
    assert {item.topic for item in items} == set(playback.topics.kinds)
    assert to_rgb(read_compressed_image(bytes(items[0].data))).shape == (64, 48, 3)
    (tmp_path / "0.jpg").unlink(), (tmp_path / "2.bmp").unlink()
    playback = Playback(open_source(tmp_path))
    assert {item.topic for item in playback} == set(playback.topics.kinds)


def test_phone_pictures_train_upright_and_posed_ones_as_stored(tmp_path):
    for i in range(8):
        file = tmp_path / f"{'ab'[i % 2]}/{i}.jpg"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(encoded("JPEG", 8))
    splits = open_dataset("image_folder", tmp_path)
    assert {s.source.load().shape for s in splits.samples} == {(64, 48, 3)}
    assert any(n.startswith("8 image files lie on their side") for n in splits.notes)
    seven = tmp_path / "seven"
    seven.mkdir()
    for i in range(2):
        (seven / f"frame-{i:06}.color.jpg").write_bytes(encoded("JPEG", 8))
        np.savetxt(seven / f"frame-{i:06}.pose.txt", np.eye(4))
    posed = open_dataset("seven_scenes", seven, split="train")
    assert {s.source.load().shape for s in posed.samples} == {(48, 64, 3)}
    assert any(
        "2 image files have an EXIF orientation, which is not applied" in n for n in posed.notes
    )


@pytest.mark.parametrize("form", ["WEBP", "BMP", "GIF", "TIFF", "PNG", "PPM", "AVIF"])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_format_is_that_of_the_content_whatever_the_name(tmp_path, form, suffix):
    options = {"lossless": True} if form == "WEBP" else {}
    (tmp_path / f"a{suffix}").write_bytes(encoded(form, **options))
    image = FileImage(str(tmp_path / f"a{suffix}")).load()
    assert alike(image, QUARTERS)
    (frame,) = open_source(tmp_path)
    np.testing.assert_array_equal(to_rgb(frame.message), image)
    notes = image_notes([tmp_path / f"a{suffix}"])
    named = {"PPM": "PNM"}.get(form, form)
    assert notes == [] if suffix[1:].upper() == form else f"is {named} by its content" in notes[0]


@pytest.mark.parametrize(
    ("mode", "form"),
    [("CMYK", "JPEG"), ("L", "JPEG"), ("RGBA", "PNG"), ("P", "PNG"), ("LA", "PNG"), ("1", "PNG"),
     ("I;16", "PNG"), ("I;16", "TIFF"), ("CMYK", "TIFF"), ("P", "GIF"), ("L", "WEBP"), ("1", "TIFF")],
)  # fmt: skip
def test_unusual_pixels_look_as_pillow_shows_them(tmp_path, mode, form):
    image = Image.fromarray(QUARTERS)
    if mode == "I;16":
        image = Image.fromarray(QUARTERS[..., 0].astype(np.uint16) * 257)
        expected = np.repeat(QUARTERS[..., :1], 3, axis=2)
    else:
        image = image.convert(mode)
        expected = np.asarray(image.convert("RGB"))
    image.save(tmp_path / "a.png", form)
    assert alike(FileImage(str(tmp_path / "a.png")).load(), expected)


@pytest.mark.parametrize("form", ["GIF", "TIFF", "BIGTIFF", "WEBP", "MPO", "PNG", "AVIF"])
def test_first_picture_counts_of_files_with_several_and_notes_say_so(tmp_path, form):
    rolled = Image.fromarray(np.roll(QUARTERS, 24, axis=0))
    options = {"WEBP": {"lossless": True}, "BIGTIFF": {"big_tiff": True}}.get(form, {})
    file = tmp_path / "a.jpg"
    for others in ([], [rolled], [rolled, rolled]):
        more = {"save_all": True, "append_images": others, **options}
        file.write_bytes(encoded(form.removeprefix("BIG"), **more))
        assert alike(FileImage(str(file)).load(), QUARTERS)
        said = [note for note in image_notes([file]) if "more than one picture" in note]
        assert bool(said) == (bool(others) and form != "MPO")  # a phone's second picture is no page
        with open_source(tmp_path) as source:
            assert [note for note in source.notes if "more than one picture" in note] == said


def test_smaller_copies_and_masks_in_a_tiff_are_no_pictures_of_their_own(tmp_path):
    small = Image.fromarray(QUARTERS[::2, ::2])
    for kind, several in ((1, False), (4, False), (2, True), (0, True)):
        small.encoderinfo = {"tiffinfo": {254: kind}}
        (tmp_path / "a.tif").write_bytes(encoded("TIFF", save_all=True, append_images=[small]))
        assert bool(image_notes([tmp_path / "a.tif"])) == several, kind


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"exif": b"thumb"}])
def test_jpeg_that_was_cut_off_is_refused(tmp_path, options):
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    buffer = io.BytesIO()
    if "exif" in options:  # with a whole picture, its end mark too, in EXIF
        options = {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0" + encoded("JPEG")}
    Image.fromarray(noise).save(buffer, "JPEG", **options)
    data = buffer.getvalue()
    (tmp_path / "a.jpg").write_bytes(data)
    assert FileImage(str(tmp_path / "a.jpg")).load().shape == noise.shape
    (tmp_path / "a.jpg").write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(ImageError, match="cut off"):
        FileImage(str(tmp_path / "a.jpg")).load()


def test_files_that_hold_no_image_are_counted_by_reason(tmp_path):
    good, page, empty, link, pipe = (
        tmp_path / f"{n}.jpg" for n in ("good", "page", "empty", "link", "pipe")
    )
    good.write_bytes(encoded("JPEG"))
    page.write_text("<html>404</html>")
    empty.touch()
    link.symlink_to(tmp_path / "nothing")
    os.mkfifo(pipe)
    notes = image_notes([good, page, empty, link, pipe])
    text = "\n".join(notes)
    assert len(notes) == 4 and "good" not in text
    assert f"1 image file holds no image of a known format: {page}" in text
    assert f"1 image file is empty and cannot be read: {empty}" in text
    assert f"No such file or directory): {link}" in text
    assert f"1 image file is no regular file: {pipe}" in text
    for file in (page, empty, link, pipe):  # and a pipe does not keep its reader for ever
        with pytest.raises(ImageError):
            FileImage(str(file)).load()
    for file in (link, pipe):
        with pytest.raises(ImageError):
            FileImage(str(file)).encoded()


def test_linked_folders_are_read_once_and_loops_end(tmp_path):
    for name in ("shelf/a.jpg", "set/b.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(encoded("JPEG"))
    (tmp_path / "set/shelf").symlink_to(tmp_path / "shelf")
    (tmp_path / "set/again").symlink_to(tmp_path / "shelf")
    (tmp_path / "shelf/loop").symlink_to(tmp_path / "set")
    found = find_images(tmp_path / "set")
    assert len(found.images) == 2 and "b.jpg" in found.images
    (note,) = found.notes()
    assert note.startswith("2 files under") and "links to a folder that is read already" in note


def test_everything_in_a_folder_is_used_or_counted(tmp_path):
    for name in (
        "a.jpg",
        ".hidden.jpg",
        ".ipynb_checkpoints/a.jpg",
        "IMG_7",
        "a.jpg.part",
        "b/c/d/e/f.JPG",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(encoded("JPEG"))
    found = find_images(tmp_path)
    assert found.images == ["a.jpg", "b/c/d/e/f.JPG"]
    hidden, others = sorted(found.notes(), key=lambda note: "hidden" not in note)
    assert hidden.startswith("2 files") and others.startswith("2 files")
    assert "IMG_7" in others and "a.jpg.part" in others
    assert sorted(open_source(tmp_path).notes) == sorted(found.notes())


def test_names_that_are_no_utf_8_are_written_with_backslashes(tmp_path, capsys):
    folder = tmp_path / os.fsdecode(b"r\xe4ume")
    for i in range(20):
        file = folder / os.fsdecode((b"k\xfcche", b"flur")[i % 2]) / os.fsdecode(b"\xff%d.png" % i)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded("PNG", image=np.roll(QUARTERS, i, axis=1)))
    splits = open_dataset("image_folder", folder)
    assert splits.labels == ("flur", "k\\udcfcche")
    assert any("names are no UTF-8" in note for note in splits.notes)
    json.dumps([s.name for s in splits.samples] + list(splits.notes), ensure_ascii=False).encode()
    assert all(s.source.load().shape == QUARTERS.shape for s in splits.samples)
    assert (
        main(["data", "inspect", "image_folder", str(folder), "--output", str(tmp_path / "o")]) == 0
    )
    assert "k\\udcfcche" in capsys.readouterr().out
    (frame, *_) = open_source(folder)
    frame.name.encode()
    assert to_rgb(frame.message).shape == QUARTERS.shape


def test_upright_of_a_small_array_is_what_the_numbers_say():
    image = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    turned = {o: upright(image, o)[..., 0].tolist() for o in (1, 2, 3, 4, 6, 8)}
    assert turned[1] == [[0, 1, 2], [3, 4, 5]] and turned[2] == [[2, 1, 0], [5, 4, 3]]
    assert turned[3] == [[5, 4, 3], [2, 1, 0]] and turned[4] == [[3, 4, 5], [0, 1, 2]]
    assert turned[6] == [[3, 0], [4, 1], [5, 2]] and turned[8] == [[2, 5], [1, 4], [0, 3]]
