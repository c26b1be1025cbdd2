"""Labels in tables: columns by name or by content, splits, and what is left out."""

import pytest
from tiny_datasets import image_folder, write_image

from robot_vision.datasets import open_dataset
from robot_vision.errors import ConfigError, SourceError

NAMES = [f"{i:03}" for i in range(12)]
LABELS = ["kitchen", "living room", "hall"] * 4


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate(NAMES):
        write_image(tmp_path / f"images/{name}.png", i)
    return tmp_path


def expect(splits, names=NAMES, labels=LABELS):
    found = {s.name.rpartition("/")[2][:-4]: s.label for s in splits.samples}
    assert found == dict(zip(names, labels, strict=True))


TABLES = {
    "names": lambda n, c: f"images/{n}.png,{c}",
    "quoted": lambda n, c: f'"images/{n}.png","{c}"',
    "ids": lambda n, c: f"{n},{c}",
    "swapped": lambda n, c: f"{c},{n}.png",
    "other computer": lambda n, c: f"C:\\data\\{n}.png,{c}",
}
HEADERS = {
    "names": "file_name,label",
    "quoted": '"image","Class"',
    "ids": "id,category_name",
    "swapped": "class,filename",
    "other computer": "image_path,target",
}


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("form", TABLES)
def test_columns_are_found_by_their_names(folder, form, mark):
    rows = [HEADERS[form], *map(TABLES[form], NAMES, LABELS)]
    (folder / "labels.csv").write_bytes(mark + "\r\n".join(rows).encode())
    expect(open_dataset("labels_csv", folder))
    splits = open_dataset("labels_csv", folder / "labels.csv", validation=0.25, test=0.25)
    assert [len(splits.split(s)) for s in ("train", "validation", "test")] == [6, 3, 3]
    assert splits.labels == ("hall", "kitchen", "living room")
    assert splits.samples[0].source.load().shape == (24, 32, 3)


@pytest.mark.parametrize("form", ["names", "quoted", "swapped", "other computer"])
def test_a_table_without_header_shows_its_images(folder, form):
    (folder / "labels.csv").write_text("\n".join(map(TABLES[form], NAMES, LABELS)))
    expect(open_dataset("labels_csv", folder))


def test_tabs_blanks_and_semicolons_part_columns(folder):
    numbers = [str(i % 3) for i in range(12)]
    for mark in ("\t", " ", ";", " \t "):
        rows = [f"images/{n}.png{mark}{c}" for n, c in zip(NAMES, numbers, strict=True)]
        (folder / "labels.txt").write_text("\n".join(rows))
        expect(open_dataset("labels_csv", folder), labels=numbers)
    (folder / "labels.txt").write_text("images/000.png living room\n")
    with pytest.raises(SourceError, match="which column has the classes"):
        open_dataset("labels_csv", folder)


def test_classes_in_columns_of_their_own(folder):
    classes = ["kitchen", "living room", "hall"]
    rows = ["image," + ",".join(classes)]
    rows += [
        f"{n}," + ",".join("1.0" if c == k else "0.0" for k in classes)
        for n, c in zip(NAMES, LABELS, strict=True)
    ]
    (folder / "truth.csv").write_text("\n".join(rows))
    expect(open_dataset("labels_csv", folder))
    (folder / "truth.csv").write_text("\n".join([*rows[:2], "001,1,1,0"]))
    with pytest.raises(
        SourceError, match=r"truth.csv:3: classes kitchen and living room in one row"
    ):
        open_dataset("labels_csv", folder)


def test_official_splits_of_a_column_or_of_files(folder):
    parts = ["train"] * 6 + ["Validation"] * 3 + ["test"] * 3
    rows = [f"{n}.png,{c},{p}" for n, c, p in zip(NAMES, LABELS, parts, strict=True)]
    (folder / "all.csv").write_text("\n".join(["image,label,split", *rows]))
    splits = open_dataset("labels_csv", folder)
    assert [len(splits.split(s)) for s in ("train", "validation", "test")] == [6, 3, 3]
    assert not any("drawn" in note for note in splits.notes)
    (folder / "all.csv").write_text("image,label,split\n000.png,hall,holdout\n")
    with pytest.raises(SourceError, match=r"all.csv:2: split is 'holdout': use train, val or test"):
        open_dataset("labels_csv", folder)
    (folder / "all.csv").unlink()
    bare = [row.rpartition(",")[0] for row in rows]
    (folder / "train.csv").write_text("\n".join(["image,label", *bare[:8]]))
    (folder / "val.csv").write_text("\n".join(["image,label", *bare[8:]]))
    (folder / "test.csv").write_text("id\n900\n901\n")
    splits = open_dataset("labels_csv", folder)
    assert [len(splits.split(s)) for s in ("train", "validation", "test")] == [8, 4, 0]
    assert any(
        "test.csv has no column of classes and is left out: 2 rows" in n for n in splits.notes
    )


def test_what_is_left_out_is_counted(folder):
    rows = [f"{n}.png,{c}" for n, c in zip(NAMES, LABELS, strict=True)][:9]
    rows += [rows[0], "900.png,hall", "009.png,"]
    (folder / "labels.csv").write_text("\n".join(["image,label", *rows]))
    splits = open_dataset("labels_csv", folder)
    text = "\n".join(splits.notes)
    assert len(splits.samples) == 9
    assert "1 frame skipped, which is listed before with the same class: images/000.png" in text
    assert "1 frame skipped, which has no class: 009.png" in text
    assert "900.png" in text
    assert "2 images are in the folders of the listed images but in no list" in text
    (folder / "labels.csv").write_text("\n".join(["image,label", *rows, "000.png,hall"]))
    with pytest.raises(
        SourceError, match=r"csv:14: images/000.png is 'hall', and 'kitchen' in .*csv:2"
    ):
        open_dataset("labels_csv", folder)


@pytest.mark.parametrize("word", ["NaN", "nan", "NA", "N/A", "<NA>", "None", "null", "NULL"])
def test_words_for_a_missing_value_are_no_class(folder, word):
    labels = [word if i in (3, 7) else label for i, label in enumerate(LABELS)]
    rows = [f"images/{n}.png,{c}" for n, c in zip(NAMES, labels, strict=True)]
    (folder / "labels.csv").write_text("\n".join(["file_name,label", *rows]))
    splits = open_dataset("labels_csv", folder)
    assert splits.labels == ("hall", "kitchen", "living room") and len(splits.samples) == 10
    (note,) = (note for note in splits.notes if repr(word) in note)
    assert note.startswith("2 frames skipped, as the class") and "rename it" in note


def test_words_for_a_missing_value_are_counted_where_the_image_has_other_truth(folder):
    rows = [
        f"images/{n},{c},{'NaN' if i < 3 else 'on'},{'N/A' if i == 5 else 0.1}"
        for i, (n, c) in enumerate(zip(NAMES, LABELS, strict=True))
    ]
    (folder / "labels.csv").write_text("\n".join(["file_name,room,lights,steering", *rows]))
    truth = "label:room,label:lights,number:steering"
    splits = open_dataset("labels_csv", folder, truth=truth)
    assert len(splits.samples) == 12
    assert sum("label:lights" in sample.truth for sample in splits.samples) == 9
    notes = "\n".join(splits.notes)
    assert "labels.csv: 3 cells of lights left out: 'NaN' is what programs write" in notes
    assert "labels.csv: 1 cell of steering left out: 'N/A' is what programs write" in notes


def test_names_of_columns_and_folders_are_classes_whatever_they_are(folder):
    rows = [f"{n},{i % 2},{1 - i % 2}" for i, n in enumerate(NAMES)]
    (folder / "labels.csv").write_text("\n".join(["id,None,hall", *rows]))
    assert open_dataset("labels_csv", folder).labels == ("None", "hall")
    image_folder(folder / "rooms", {"None": 4, "null": 4})
    assert open_dataset("image_folder", folder / "rooms").labels == ("None", "null")


def labelled(folder, head, row):
    (folder / "labels.csv").write_text("\n".join([head, *(row(i) for i in range(12))]))
    return open_dataset("labels_csv", folder).notes


def test_columns_and_tables_that_are_not_used_are_named(folder):
    notes = labelled(folder, "image,label,label2", lambda i: f"{i:03},{i % 2},{i % 3}")
    assert any("'label' the classes, and other columns are not used: label2" in n for n in notes)
    notes = labelled(folder, "image,label", lambda i: f"{i:03},{i % 2}")
    assert not any("not used" in n for n in notes)
    (folder / "labels.csv").rename(folder / "train.csv")
    (folder / "more.csv").write_text("image,label\n000,2\n")
    notes = open_dataset("labels_csv", folder).notes
    assert "not read, since there is train.csv: more.csv" in notes


def test_classes_that_may_be_one_or_several_are_named(folder):
    notes = labelled(folder, "image,label", lambda i: f"{i:03},{('1', '1.0', '2')[i % 3]}")
    assert "'1' and '1.0' are classes of their own: rename them if they are one" in notes
    words = ("hall", '"hall, kitchen"', "kitchen", "large; bright")
    notes = labelled(folder, "image,label", lambda i: f"{i:03},{words[i % 4]}")
    (note,) = (n for n in notes if "made of names of others" in n)
    assert note.startswith("1 class is made of names of others, such as 'hall, kitchen'")


def test_an_open_choice_of_columns_is_refused_and_can_be_set(folder):
    rows = [f"{n}.png,{c},{i}" for i, (n, c) in enumerate(zip(NAMES, LABELS, strict=True))]
    (folder / "labels.csv").write_text("\n".join(["photo,room,person", *rows]))
    with pytest.raises(SourceError, match="which column has the classes.*one of room, person"):
        open_dataset("labels_csv", folder)
    expect(open_dataset("labels_csv", folder, label_column="room", images="images"))
    with pytest.raises(ConfigError, match="label_column 'rom'.*did you mean 'room'"):
        open_dataset("labels_csv", folder, label_column="rom")
    (folder / "labels.csv").write_text("#timestamp [ns],filename\n1403636579763555584,000.png\n")
    with pytest.raises(SourceError, match="which column has the classes.*one of timestamp"):
        open_dataset("labels_csv", folder)
    rows = [f"{n}.png,{i}" for i, n in enumerate(NAMES)]
    (folder / "labels.csv").write_text("\n".join(["photo,number", *rows]))
    notes = open_dataset("labels_csv", folder).notes
    assert "12 classes for 12 images: set label_column if these are not classes" in notes
    (folder / "labels.csv").write_text("photo\n000.png\n")
    with pytest.raises(SourceError, match="labels.csv has no column of classes"):
        open_dataset("labels_csv", folder)
    (folder / "more.csv").write_text("a,b\n")
    with pytest.raises(SourceError, match="labels.csv, more.csv.*give the file"):
        open_dataset("labels_csv", folder)


def test_two_images_of_one_name_are_not_guessed_at(tmp_path):
    image_folder(tmp_path, {"a": 2, "b": 1})
    (tmp_path / "labels.csv").write_text("file,label\na/0.png,x\nb/0.png,y\n0.png,z\n1.png,x\n")
    splits = open_dataset("labels_csv", tmp_path)
    assert sorted((s.name, s.label) for s in splits.samples) == [
        ("a/0.png", "x"),
        ("a/1.png", "x"),
        ("b/0.png", "y"),
    ]
    assert any("or whose name is that of several: 0.png" in note for note in splits.notes)


def test_a_row_wider_than_the_table_is_refused(folder):
    rows = [f"{n}.png,living room, large" for n in NAMES]
    (folder / "labels.csv").write_text("\n".join(["image,label", *rows]))
    with pytest.raises(
        SourceError, match="csv:2: 3 words in a table of 2 columns: put quotes round"
    ):
        open_dataset("labels_csv", folder)
    (folder / "labels.csv").write_text("\n".join([f"{NAMES[0]}.png,hall", *rows]))
    with pytest.raises(SourceError, match="csv:2: 3 words in a table of 2 columns"):
        open_dataset("labels_csv", folder)
    rows = [f"{n}.png,{c}," for n, c in zip(NAMES, LABELS, strict=True)]
    (folder / "labels.csv").write_text("\n".join(["image,label", *rows]))
    expect(open_dataset("labels_csv", folder))


def test_a_table_that_is_no_utf_8_names_the_line_and_the_remedy(folder):
    (folder / "labels.csv").write_bytes(
        "image,label\n000.png,hall\n001.png,café\n".encode("latin-1")
    )
    with pytest.raises(SourceError, match=r"labels.csv:3: not UTF-8 .*: save the file as UTF-8"):
        open_dataset("labels_csv", folder)


def test_columns_of_numbers_may_have_empty_cells(folder):
    rows = [
        f"{n}.png,{i / 10},,x" if i % 2 else f"{n}.png,,{i % 4 // 2}," for i, n in enumerate(NAMES)
    ]
    (folder / "drive.csv").write_text("\n".join(["image,steering,collision,rest", *rows]))
    splits = open_dataset("labels_csv", folder, truth=["number:steering", "number:collision"])
    truth = {s.name[-7:-4]: dict(s.truth) for s in splits.samples}
    assert truth["003"] == {"number:steering": 0.3} and truth["002"] == {"number:collision": 1.0}
    assert len(truth) == len(NAMES) and splits.labels == ()
    assert any("not used: rest" in note for note in splits.notes)
    changed = splits.samples[0].of("number:steering"), splits.samples[0].of("number:none")
    assert None in changed


@pytest.mark.parametrize(
    ("cell", "truth", "message"),
    [
        ("left", "number:steering", "drive.csv:2: steering is 'left': use a number"),
        ("inf", "number:steering", "steering is 'inf'"),
        ("0.5", "number:stering", "Unknown column of numbers 'stering'.*'steering'"),
        ("0.5", "pose:steering", "label:NAME or number:NAME"),
    ],
)
def test_what_is_no_number_is_named(folder, cell, truth, message):
    (folder / "drive.csv").write_text(f"image,steering\n000.png,{cell}\n")
    with pytest.raises((ConfigError, SourceError), match=message):
        open_dataset("labels_csv", folder, truth=truth)
