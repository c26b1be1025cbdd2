"""Tables of poses as people publish them: their own columns, units, ends of line, repeated stamps."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from tiny_datasets import POINT, camera, icl_nuim, transforms, tum

from robot_vision.cli import main
from robot_vision.cli.export import read_labels
from robot_vision.datasets import open_dataset
from robot_vision.errors import SourceError
from robot_vision.recordings.writing import RecordingWriter
from robot_vision.truth.pose_files import read_pose_file
from robot_vision.truth.reading import TruthRequest, read_truth
from robot_vision.truth.tables import read_table

START = 1_403_636_580_838_555_648
STEP = 50_000_000
COUNT = 5


def truth() -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Stamp, position, quaternion xyzw."""
    rng = np.random.default_rng(5)
    rotations = Rotation.random(COUNT, random_state=rng).as_quat()
    return [(START + i * STEP, rng.normal(size=3), rotations[i]) for i in range(COUNT)]


def refuse(error: SourceError) -> None:
    raise error


def seconds(ns: int) -> str:
    return f"{ns // 10**9}.{ns % 10**9:09d}"


def positional(stamp, p, q):
    return [stamp, *p, *q]


def euroc_row(stamp, p, q):
    return [stamp, *p, q[3], *q[:3]]


EUROC = (
    "#timestamp [ns], p_RS_R_x [m], p_RS_R_y [m], p_RS_R_z [m], q_RS_w [], q_RS_x [], q_RS_y [], q_RS_z [], "
    "v_RS_R_x [m s^-1], v_RS_R_y [m s^-1], v_RS_R_z [m s^-1], b_w_RS_S_x [rad s^-1]"
)
FILES = {
    # header, row of (stamp ns, p, q), separator, name, what is said
    "euroc": (
        EUROC,
        lambda s, p, q: [*euroc_row(s, p, q), 9, 8, 7, 6],
        ",",
        "data.csv",
        "4 more columns",
    ),
    "tum of nanoseconds": ("", positional, " ", "traj.txt", "as TUM .*stamps in nanoseconds"),
    "orb-slam": ("", lambda s, p, q: positional(f"{s}.000000", p, q), " ", "kf.txt", "nanoseconds"),
    "tum with more columns": (
        "# timestamp tx ty tz qx qy qz qw",
        lambda s, p, q: [*positional(seconds(s), p, q), 0.5, 3],
        " ",
        "traj.txt",
        "2 more columns not used",
    ),
    "twelve columns of tum": (
        "",
        lambda s, p, q: [*positional(seconds(s), p, q), 1, 2, 3, 4],
        " ",
        "traj.txt",
        "as TUM .*4 more columns not used",
    ),
    "own order": (
        "qw,qx,qy,qz,x,y,z,time",
        lambda s, p, q: [q[3], *q[:3], *p, seconds(s)],
        ",",
        "poses.csv",
        r"qw qx qy qz tx ty tz stamp",
    ),
    "w first in a comment": (
        "# timestamp, tx, ty, tz, qw, qx, qy, qz",
        lambda s, p, q: euroc_row(seconds(s), p, q),
        " ",
        "poses.txt",
        "tx ty tz qw qx qy qz",
    ),
    "rostopic": (
        "%time,field.header.seq,field.header.stamp,field.header.frame_id,field.pose.position.x,"
        "field.pose.position.y,field.pose.position.z,field.pose.orientation.x,field.pose.orientation.y,"
        "field.pose.orientation.z,field.pose.orientation.w",
        lambda s, p, q: [s + 12345, 7, s, "map", *p, *q],
        ",",
        "topic.csv",
        "nanoseconds",
    ),
    "milliseconds by semicolons": (
        "timestamp_ms;px;py;pz;qx;qy;qz;qw",
        lambda s, p, q: positional(f"{s // 10**6}.{s % 10**6:06d}", p, q),
        ";",
        "poses.csv",
        "milliseconds",
    ),
    "a message in a table": (
        "pos_x,pos_y,pos_z,ori_x,ori_y,ori_z,ori_w,sec,nsec",
        lambda s, p, q: [*p, *q, s // 10**9, s % 10**9],
        ",",
        "poses.csv",
        "tx ty tz qx qy qz qw stamp",
    ),
    "a plot's export": (
        "__time,/pose/header/stamp/sec,/pose/header/stamp/nanosec,/pose/pose/position/x,/pose/pose/position/y,"
        "/pose/pose/position/z,/pose/pose/orientation/x,/pose/pose/orientation/y,/pose/pose/orientation/z,"
        "/pose/pose/orientation/w",
        lambda s, p, q: [7, s // 10**9, s % 10**9, *p, *q],
        ",",
        "poses.csv",
        "1 more column not used",
    ),
    "nanoseconds alone": (
        "stamp_nsec,x,y,z,orientation_x,orientation_y,orientation_z,orientation_w",
        positional,
        ",",
        "poses.csv",
        "nanoseconds",
    ),
    "tabs": (
        "stamp [s]\ttx\tty\ttz\tqx\tqy\tqz\tqw",
        lambda s, p, q: positional(seconds(s), p, q),
        "\t",
        "p.tsv",
        "",
    ),
}
WRITTEN = {
    "unix": lambda text: text.encode(),
    "windows with a mark": lambda text: b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(),
    "utf-16": lambda text: text.encode("utf-16"),
}


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("form", FILES)
def test_tables_of_poses_are_read_by_their_header_or_format(tmp_path, form, written):
    header, row, mark, name, said = FILES[form]
    lines = [header] * bool(header) + [mark.join(map(str, row(*pose))) for pose in truth()]
    file = tmp_path / name
    file.write_bytes(WRITTEN[written]("\n".join(lines) + "\n"))
    notes: list[str] = []
    found = read_pose_file(file, refuse, say=notes.append)
    assert found.stamps_ns.tolist() == [stamp for stamp, _, _ in truth()]
    np.testing.assert_allclose(found.positions, [p for _, p, _ in truth()], atol=1e-9)
    turned = Rotation.from_quat(found.xyzw).inv() * Rotation.from_quat([q for *_, q in truth()])
    assert turned.magnitude().max() < 1e-9
    assert len(notes) == bool(said)
    if said:
        assert re.search(said, notes[0]), notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stamp,x,y,z,yaw\n1,0,0,0,0\n", "lacks qx, qy, qz, qw"),
        ("stamp,tx,x,y,z,qx,qy,qz,qw\n1,0,0,0,0,0,0,0,1\n", "'tx' and 'x' could be the same"),
        (
            "#timestamp [ns],tx,ty,tz,qx,qy,qz,qw\n1.5,0,0,0,0,0,0,1\n",
            "'1.5' is not a stamp in nanoseconds",
        ),
        ("seq,x,y,z,qx,qy,qz,qw\n1,0,0,0,0,0,0,1\n", "lacks stamp"),
        ("sec,nanosec,x,y,z,qx,qy,qz,qw\n1,1.5,0,0,0,0,0,0,1\n", ":2: '1 and 1.5' is not a stamp"),
        ("stamp,tx,ty,tz,qx,qy,qz,qw\n1,0,0,0,0,0\n", ":2: .*needs 7 numbers, and there are 5"),
        ("stamp;tx;ty;tz;qx;qy;qz;qw\n1;0,5;0;0;0;0;0;1\n", ":2: .*not all are numbers"),
    ],
)
def test_tables_that_cannot_be_poses_are_refused_by_name(tmp_path, text, message):
    file = tmp_path / "poses.csv"
    file.write_text(text)
    with pytest.raises(SourceError, match=message):
        read_pose_file(file, refuse)


@pytest.mark.parametrize(("unit", "metres"), [("mm", 0.001), ("cm", 0.01), ("m", 1.0)])
def test_positions_are_in_the_headers_unit(tmp_path, unit, metres):
    file, notes = tmp_path / "poses.csv", list[str]()
    head = f"time [s],x [{unit}],y [{unit}],z [{unit}],qx,qy,qz,qw"
    file.write_text(f"{head}\n1.0,1000,2000,-500,0,0,0,1\n")
    found = read_pose_file(file, refuse, say=notes.append)
    np.testing.assert_allclose(found.positions, [[1000 * metres, 2000 * metres, -500 * metres]])
    assert any(f"positions in {unit}" in n for n in notes) == (unit != "m")


@pytest.mark.parametrize("units", [("ft", "ft", "ft"), ("m", "m", "mm"), ("m", "m", "")])
def test_positions_of_unknown_or_mixed_units_are_refused(tmp_path, units):
    head = ",".join(
        ["time [s]", *(f"{a} [{u}]" for a, u in zip("xyz", units, strict=True)), "qx,qy,qz,qw"]
    )
    (tmp_path / "poses.csv").write_text(f"{head}\n1.0,1,2,3,0,0,0,1\n")
    with pytest.raises(
        SourceError, match="the header gives positions in .*use one of m, cm, mm, km"
    ):
        read_pose_file(tmp_path / "poses.csv", refuse)


def test_poses_of_kitti_without_times_name_the_option(tmp_path):
    (tmp_path / "poses.txt").write_text("1 0 0 0 0 1 0 0 0 0 1 0\n")
    with pytest.raises(SourceError, match=r"times.txt does not exist: give .* \(pose_times\)"):
        read_pose_file(tmp_path / "poses.txt", refuse)


def test_repeated_stamps_are_kept_once_and_said(tmp_path):
    file = tmp_path / "truth.txt"
    file.write_text(
        "1.0 0 0 0 0 0 0 1\n1.0 0 0 0 0 0 0 1\n2.0 1 0 0 0 0 0 1\n2.0 1.02 0 0 0 0 0 -1\n3.0 2 0 0 0 0 0 1\n"
    )
    notes: list[str] = []
    found = read_pose_file(file, refuse, say=notes.append)
    assert found.positions[:, 0].tolist() == [0, 1, 2]
    assert "1 pose repeats a stamp and its pose: left out (first: " in notes[0]
    assert "truth.txt:2)" in notes[0]
    assert "1 pose repeats a stamp with another pose, up to 0.02 m" in notes[1]
    assert "truth.txt:4)" in notes[1]
    file.write_text("1.0 0 0 0 0 0 0 1\n1.0 3 0 0 0 0 0 1\n")
    with pytest.raises(
        SourceError, match=r"truth.txt:2: .*that of line 1, and its pose is another, by 3 m"
    ):
        read_pose_file(file, refuse)


def test_repeated_stamps_of_a_topic_are_said_or_refused(tmp_path):
    for name, shift in (("jitter", 0.02), ("two robots", 3.0)):
        with RecordingWriter(tmp_path / name) as writer:
            for stamp, p, q in truth():
                writer.camera_pose("/truth/pose", stamp, p, q)
                writer.camera_pose("/truth/pose", stamp, p + [shift, 0, 0], q)
    found = read_truth(tmp_path / "jitter", TruthRequest())
    assert any(
        "5 poses repeat a stamp with another pose, up to 0.02 m" in note for note in found.notes
    ), found.notes
    with pytest.raises(SourceError, match=r"/truth/pose#1: stamp .* is there before, .* by 3 m"):
        read_truth(tmp_path / "two robots", TruthRequest())


def test_a_files_poses_bear_the_note_that_a_topics_do(tmp_path):
    bag = tmp_path / "drive"
    with RecordingWriter(bag) as writer:
        writer.image("/camera/image_raw", START, "camera", np.zeros((8, 8, 3), np.uint8))
    file = tmp_path / "data.csv"
    rows = [",".join(map(str, euroc_row(*pose))) for pose in truth()]
    file.write_text("\n".join([EUROC.rsplit(",", 4)[0], *rows]) + "\n")
    noted = read_truth(bag, TruthRequest(pose_file=str(file))).notes
    assert any("taken as the camera's own (set base_to_camera" in note for note in noted), noted
    assert any("tx ty tz qw qx qy qz" in note for note in noted), noted
    noted = read_truth(bag, TruthRequest(pose_file=str(file), base_to_camera="identity")).notes
    assert not any("camera's own" in note for note in noted)
    assert any("moved by base_to_camera" in note for note in noted)


def test_tum_rgbd_reads_windows_files_nanoseconds_and_more_columns(tmp_path):
    folder = tum(tmp_path / "room", 6)
    before = open_dataset("tum_rgbd", folder)
    for name in ("rgb.txt", "groundtruth.txt"):
        lines = (folder / name).read_text().splitlines()
        changed = []
        for line in lines:
            stamp, *rest = line.split()
            if stamp[0].isdigit():
                whole, _, part = stamp.partition(".")
                line = " ".join([whole + part.ljust(9, "0"), *rest] + ["0.1"] * (name != "rgb.txt"))
            changed.append(line)
        (folder / name).write_bytes(b"\xef\xbb\xbf" + "\r\n".join(changed).encode())
    after = open_dataset("tum_rgbd", folder)
    assert [s.name for s in after.samples] == [s.name for s in before.samples]
    assert [s.stamp_ns for s in after.samples] == [s.stamp_ns for s in before.samples]
    for a, b in zip(after.samples, before.samples, strict=True):
        np.testing.assert_array_equal(a.T_map_camera, b.T_map_camera)
    assert any("stamps in nanoseconds; 1 more column not used" in note for note in after.notes)


def test_icl_nuim_opens_with_its_mirrored_poses(tmp_path):
    splits = open_dataset("tum_rgbd", icl_nuim(tmp_path / "traj0", 6), split="train")
    assert [s.name for s in splits.train] == [f"traj0/rgb/{i}.png" for i in range(1, 7)]
    for i, sample in enumerate(splits.train, 1):
        cam = camera(i)
        np.testing.assert_allclose(
            cam.sees(sample.T_map_camera, POINT), cam.coordinates(POINT), atol=1e-4
        )
    np.testing.assert_allclose(splits.camera_matrix[1], [0, 24, 239.5 / 20])  # of 32 x 24
    assert any("left-handed" in note for note in splits.notes)
    (tmp_path / "traj0/traj0.gt.freiburg").rename(tmp_path / "traj0/groundtruth.txt")
    notes = open_dataset("tum_rgbd", tmp_path / "traj0").notes
    assert any("if this is ICL-NUIM, call groundtruth.txt a .gt.freiburg" in n for n in notes)


def test_associations_may_name_the_colour_image_first_and_repeat_a_line(tmp_path):
    folder = tum(tmp_path / "desk", 4)
    lines = (folder / "rgb.txt").read_text().splitlines()[2:]
    (folder / "rgb.txt").unlink()
    both = [f"{line} {line.replace('rgb/', 'depth/')}" for line in lines]
    (folder / "associations.txt").write_text("\n".join([*both, both[-1]]))
    splits = open_dataset("tum_rgbd", folder)
    assert len(splits.samples) == 4
    assert any("associations.txt:5: 1 line repeats the line above" in note for note in splits.notes)


def test_a_table_that_is_no_text_is_named(tmp_path, capsys):
    (tmp_path / "rgb.txt").write_bytes(b"\xff\x00\xff")
    (tmp_path / "groundtruth.txt").write_text("1 0 0 0 0 0 0 1\n")
    assert main(["data", "inspect", "tum_rgbd", str(tmp_path)]) == 2
    assert "rgb.txt:1: not UTF-8" in capsys.readouterr().err


def test_a_mark_is_no_part_of_the_first_label_or_key(tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_bytes(b"\xef\xbb\xbfcat\r\ndog\r\n")
    assert read_labels(str(labels)) == ("cat", "dog")
    file = transforms(tmp_path, 3) / "transforms.json"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert len(open_dataset("transforms_json", tmp_path).samples) == 3


def test_csv_words_keep_blanks_and_commas_between_quotes(tmp_path: Path):
    file = tmp_path / "a.csv"
    file.write_text('# made by hand\n"a, b.jpg",living room\n')
    table = read_table(file)
    assert [row.words for row in table.rows] == [["a, b.jpg", "living room"]]
    assert table.rows[0].number == 2
