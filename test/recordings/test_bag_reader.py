"""Bags are read whole, or it is said what is missing: metadata, summaries, indexes and journals may lie."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import struct

import numpy as np
import pytest
import yaml
from broken_bags import (
    FRONT,
    IMAGE,
    PERIOD,
    REAR,
    START,
    TYPES,
    TYPES1,
    edit_metadata,
    image,
    leave_journal,
    listing,
    mcap_records,
    pack,
    read_metadata,
    rewrite_mcap,
    without_summary,
    write,
    write_metadata,
    write_plain_mcap,
    write_ros1,
    write_splits,
)
from evaluation_bags import IMAGE_TOPIC
from evaluation_bags import write_bag as write_drive
from rosbags.rosbag2 import CompressionMode
from tiny_bundle import make_tiny_bundle

from robot_vision.cli import main
from robot_vision.datasets import open_dataset
from robot_vision.errors import SourceError
from robot_vision.images.decode import to_rgb
from robot_vision.recordings import open_source
from robot_vision.recordings.bag_reader import BagFile
from robot_vision.recordings.writing import RecordingWriter


def numbers(path, **options):
    """Reads by the sequential reader; returns the images' numbers, problems and notes."""
    with open_source(path, **options) as source:
        found = [int(to_rgb(frame.message)[0, 0, 0]) for frame in source]
        return found, list(source.problems), list(source.notes)


def whole(path, says=""):
    """Checks that all thirty images come in order, by both ways of reading, and what is noted."""
    found, problems, notes = numbers(path)
    assert found == list(range(30)) and problems == []
    splits = open_dataset("rosbag", path, pose_source="none", split="test")
    assert [int(s.source.load()[0, 0, 0]) for s in splits.test] == list(range(30))
    if not says:
        assert notes == []
        return
    for words in [says] if isinstance(says, str) else says:
        assert sum(words in note for note in notes) == 1, notes
        assert any(words in note for note in splits.notes), splits.notes


def missing(path, found, says):
    """Checks which images come, and that what is missing is said, by both ways of reading."""
    read, problems, _ = numbers(path)
    assert read == list(found)
    splits = open_dataset("rosbag", path, pose_source="none", split="test")
    assert [int(s.source.load()[0, 0, 0]) for s in splits.test] == list(found)
    for words in [says] if isinstance(says, str) else says:
        assert any(words in line for line in problems), problems
        assert any(words in note for note in splits.notes), splits.notes


# metadata.yaml


def test_start_of_the_last_split_hides_nothing(tmp_path):
    bag = write_splits(tmp_path / "bag")

    def change(about):
        about["starting_time"]["nanoseconds_since_epoch"] = START + 20 * PERIOD

    edit_metadata(bag, change)
    whole(bag, "says that it starts at 2023-11-14T22:13:22.000Z, and its first message is of 2023-")
    assert numbers(bag, start_s=1.0)[0] == list(range(10, 30))


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_qos_of_metadata_hides_no_topic(tmp_path, storage):
    bag = write(tmp_path / "bag", storage, range(10), (FRONT, REAR))
    forever = {"sec": 2147483647, "nsec": 4294967295}
    profile = {
        "history": 1,
        "depth": 7,
        "reliability": 2,
        "durability": 2,
        "deadline": forever,
        "lifespan": forever,
        "liveliness": 1,
        "liveliness_lease_duration": forever,
        "avoid_ros_namespace_conventions": False,
    }
    for text in (yaml.safe_dump([profile]), "- no: profile\n", "{"):

        def change(about, text=text):
            topic = about["topics_with_message_count"][0]["topic_metadata"]
            topic["offered_qos_profiles"] = text

        edit_metadata(bag, change)
        found, problems, notes = numbers(bag)
        assert len(found) == 20 and problems == notes == []


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_storage_identifier_of_a_reindex_is_not_needed(tmp_path, storage):
    bag = write(tmp_path / "bag", storage)
    for said in ("", "mcap", "sqlite3", "my_plugin"):
        edit_metadata(bag, lambda about, said=said: about.update(storage_identifier=said))
        whole(bag)


def test_wrong_counts_types_and_duration_are_said(tmp_path):
    bag = write(tmp_path / "bag")
    topic = read_metadata(bag)["topics_with_message_count"][0]

    def counted(count, total):
        def change(about):
            about["topics_with_message_count"][0]["message_count"] = count
            about["message_count"] = total

        edit_metadata(bag, change)

    counted(40, 40)
    said = f"metadata.yaml promises 40 messages on {FRONT}, where 30 are: 10 messages are missing"
    missing(bag, range(30), said)
    counted(20, 20)
    whole(bag, f"metadata.yaml speaks of 20 messages on {FRONT}, where 30 are: all are read")
    counted(30, 50)
    missing(bag, range(30), "metadata.yaml speaks of 50 messages in all, and 30 are there")
    counted(30, 30)
    topic["topic_metadata"]["type"] = "sensor_msgs/msg/CompressedImage"
    edit_metadata(bag, lambda about: about.update(topics_with_message_count=[topic]))
    whole(bag, f"calls {FRONT} sensor_msgs/msg/CompressedImage, and it is {IMAGE}")
    topic["topic_metadata"].update(type=IMAGE, name="/other")
    edit_metadata(bag, lambda about: about.update(topics_with_message_count=[topic]))
    missing(bag, range(30), "promises 30 messages on /other, where 0 are")
    topic["topic_metadata"].update(name=FRONT)
    edit_metadata(
        bag,
        lambda about: about.update(
            topics_with_message_count=[topic], duration={"nanoseconds": 10**9}
        ),
    )
    whole(bag, "it lasts 1.000 s, and its messages span 2.900 s")


@pytest.mark.parametrize("text", ["", "a: [", "a: 1", "rosbag2_bagfile_information: 5", "\0"])
def test_metadata_that_say_nothing_are_not_needed(tmp_path, text):
    bag = write(tmp_path / "bag")
    (bag / "metadata.yaml").write_text(text)
    whole(bag, "the files are read without it")


def test_metadata_of_a_newer_version_are_not_needed(tmp_path):
    bag = write(tmp_path / "bag")
    edit_metadata(bag, lambda about: about.update(version=12, compression_mode="NEW"))
    whole(bag)


# Files of the folder


def test_split_that_is_gone_is_named_with_its_messages(tmp_path):
    bag = write_splits(tmp_path / "bag")
    (bag / "rec_1.mcap").unlink()
    left = [*range(10), *range(20, 30)]
    says = [
        "rec_1.mcap, with 10 messages, is in metadata.yaml and not in the folder",
        "10 messages are missing",
    ]
    missing(bag, left, says)


def test_split_that_metadata_do_not_list_is_read(tmp_path):
    bag = write_splits(tmp_path / "bag")
    edit_metadata(bag, lambda about: about["relative_file_paths"].pop())
    whole(bag, "rec_2.mcap is in the folder and not in metadata.yaml: it is read, too")


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("metadata", [True, False])
@pytest.mark.parametrize("packed", [(0, 1, 2), (0, 1), (2,)])
def test_packed_and_plain_files_are_one_recording(tmp_path, storage, metadata, packed):
    bag = write_splits(tmp_path / "bag", storage)
    for file in sorted(bag.glob("rec_*")):
        if int(file.stem[-1]) in packed:
            pack(file)
    if metadata:
        edit_metadata(
            bag, lambda about: about.update(compression_mode="FILE", compression_format="zstd")
        )
    else:
        (bag / "metadata.yaml").unlink()
    before = listing(bag)
    whole(bag)
    assert listing(bag) == before


def test_packed_file_is_read_by_itself(tmp_path):
    (file,) = write(tmp_path / "bag").glob("*.mcap")
    whole(pack(file))


def test_packed_file_that_is_cut_off_is_named(tmp_path):
    bag = write_splits(tmp_path / "bag")
    packed = pack(bag / "rec_1.mcap")
    os.truncate(packed, packed.stat().st_size // 2)
    missing(bag, [*range(10), *range(20, 30)], "rec_1.mcap.zstd cannot be read: it is")


@pytest.mark.parametrize("how", ["packed", "copy", "half"])
def test_file_that_is_there_twice_is_read_once(tmp_path, how):
    bag = write_splits(tmp_path / "bag")
    if how == "packed":
        shutil.copy(bag / "rec_1.mcap", bag / "rec_1b.mcap")
        os.rename(pack(bag / "rec_1b.mcap"), bag / "rec_1.mcap.zstd")
        whole(bag, "the 10 messages of rec_1.mcap.zstd are in rec_1.mcap, too, and are read once")
    elif how == "copy":
        shutil.copy(bag / "rec_1.mcap", bag / "rec_1 (copy).mcap")
        whole(bag, "the 10 messages of rec_1 (copy).mcap are in rec_1.mcap, too")
    else:
        part = write(tmp_path / "part", numbers=range(5, 15))
        shutil.copy(part / "part.mcap", bag / "rec_9.mcap")
        found, problems, _ = numbers(bag)
        assert len(found) == 40 and "5 of 10 messages of rec_9.mcap are in rec_" in problems[0]


@pytest.mark.parametrize("metadata", [True, False])
def test_files_are_read_in_the_order_of_time_and_not_of_names(tmp_path, metadata):
    bag = write_splits(tmp_path / "bag", order=(2, 0, 1))
    if not metadata:
        (bag / "metadata.yaml").unlink()
    whole(bag)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_files_that_overlap_in_time_are_merged(tmp_path, storage):
    bag = tmp_path / "bag"
    bag.mkdir()
    for k in range(2):
        part = write(tmp_path / f"part_{k}", storage, range(k, 30, 2))
        for file in part.glob("part*"):
            shutil.move(file, bag)
    whole(bag)


def test_files_of_two_storages_are_one_recording(tmp_path):
    bag = write_splits(tmp_path / "bag")
    (bag / "rec_2.mcap").unlink()
    shutil.move(write(tmp_path / "end", "sqlite3", range(20, 30)) / "end.db3", bag / "rec_2.db3")
    (bag / "metadata.yaml").unlink()
    whole(bag)


def test_files_of_other_names_and_of_two_robots_are_said(tmp_path):
    bag = write_splits(tmp_path / "bag")
    os.rename(bag / "rec_2.mcap", bag / "last.mcap")
    whole(
        bag, ["rec_2.mcap, with 10 messages, is in metadata.yaml and not in", "last.mcap is in the"]
    )
    (bag / "metadata.yaml").unlink()
    whole(bag, "3 files of different names (last, rec) are read as one recording")
    two = tmp_path / "two"
    two.mkdir()
    for k, name in enumerate(("robot1", "robot2")):  # in simulation the times are the same
        write(tmp_path / name, numbers=range(10), log=lambda i: i * PERIOD, size=8 + k)
        shutil.copy(tmp_path / name / f"{name}.mcap", two)
    found, problems, _ = numbers(two)
    assert len(found) == 20
    assert "10 of 10 messages of robot2.mcap have the topics and times of others in" in problems[0]


def test_paths_in_metadata_may_be_of_windows_and_folders_may_be_called_bag(tmp_path):
    bag = write_splits(tmp_path / "run.bag")
    names = ["run\\rec_0.mcap", "elsewhere/rec_1.mcap", "C:\\bags\\rec_2.mcap"]
    edit_metadata(bag, lambda about: about.update(relative_file_paths=names))
    whole(bag)


def test_other_packing_is_named(tmp_path):
    import gzip

    bag = write_splits(tmp_path / "bag")
    (bag / "rec_1.mcap.gz").write_bytes(gzip.compress((bag / "rec_1.mcap").read_bytes()))
    (bag / "rec_1.mcap").unlink()
    edit_metadata(
        bag,
        lambda about: about.update(
            relative_file_paths=["rec_0.mcap", "rec_1.mcap.gz", "rec_2.mcap"],
            compression_mode="MESSAGE",
            compression_format="lz4",
        ),
    )
    says = ["rec_1.mcap.gz cannot be read: it is packed by gzip", "compressed by lz4, which is not"]
    missing(bag, [*range(10), *range(20, 30)], says)


def test_topic_that_changes_its_type_is_said(tmp_path):
    bag = tmp_path / "bag"
    with RecordingWriter(tmp_path / "a_1") as other:
        other.label(FRONT, START - PERIOD, "kitchen")
        other.label("/x", START - PERIOD, "kitchen")
    shutil.move(write(tmp_path / "a_0", "sqlite3"), bag)
    shutil.move(tmp_path / "a_1" / "a_1.db3", bag)
    (bag / "metadata.yaml").unlink()
    missing(bag, range(30), f"1 message of {FRONT} is std_msgs/msg/String, and is left out")


def test_files_that_are_not_read_are_named(tmp_path):
    bag = write(tmp_path / "bag")
    write_ros1(bag / "run.bag", range(3))
    (bag / "bag.mcap.bak").write_bytes(b"x")
    write(bag / "other", numbers=range(3))
    says = ["run.bag is not read", "bag.mcap.bak is not read", "other is a recording of its own"]
    whole(bag, says)


def test_empty_file_and_split_without_messages(tmp_path):
    bag = write_splits(tmp_path / "bag")
    write(tmp_path / "none", numbers=range(0))
    shutil.copy(tmp_path / "none" / "none.mcap", bag / "rec_3.mcap")
    (bag / "metadata.yaml").unlink()
    whole(bag)
    (bag / "rec_4.mcap").touch()
    missing(bag, range(30), "rec_4.mcap cannot be read: it is empty")


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_message_compression_needs_no_metadata(tmp_path, storage):
    bag = write(tmp_path / "bag", storage, mode=CompressionMode.MESSAGE)
    whole(bag)
    (bag / "metadata.yaml").unlink()
    whole(bag, "its messages are compressed by zstd one by one")
    (file,) = bag.iterdir()
    whole(file, "its messages are compressed by zstd one by one")


# MCAP


def mcap(tmp_path, **options):
    """Returns the file of a bag that is so large that it has several chunks, without its metadata."""
    bag = write(tmp_path / "bag", size=330, **options)
    (bag / "metadata.yaml").unlink()
    (file,) = bag.iterdir()
    assert sum(op == 6 for op, _ in mcap_records(file.read_bytes())) >= 8
    return file


def test_mcap_without_summary_is_read(tmp_path):
    file = mcap(tmp_path)
    without_summary(file)
    whole(file)


@pytest.mark.parametrize("total", [20, 30, 40])
@pytest.mark.parametrize("of_topic", [None, 20, 30, 40])
def test_mcap_statistics_that_lie_are_said(tmp_path, total, of_topic):
    file = mcap(tmp_path)

    def change(op, content):
        if (
            op == 0x0B
        ):  # statistics: 42 bytes, then a length, and numbers of channels with their counts
            content = struct.pack("<Q", total) + content[8:42]
            channels = b"" if of_topic is None else struct.pack("<HQ", 1, of_topic)
            content += struct.pack("<I", len(channels)) + channels
        return [(op, content)]

    rewrite_mcap(file, change)
    if of_topic == 40:
        missing(file, range(30), f"promises 40 messages on {FRONT}, where 30 are: 10 messages")
    elif total == 40:
        missing(file, range(30), "speaks of 40 messages in all, and 30 are there")
    elif of_topic == 20:
        whole(file, f"the index of bag.mcap speaks of 20 messages on {FRONT}, where 30 are")
    else:
        whole(file, "speaks of 20 messages in all" if total == 20 else "")


def test_mcap_summary_that_lacks_chunks_hides_nothing(tmp_path):
    file = mcap(tmp_path)
    seen = []

    def change(op, content):
        if op == 0x08:
            seen.append(op)
            return [(op, content)] if len(seen) < 3 else []
        return [(op, content)]

    rewrite_mcap(file, change)
    assert len(seen) >= 8
    whole(file)


def test_mcap_summary_without_statistics_hides_nothing(tmp_path):
    file = mcap(tmp_path)
    rewrite_mcap(file, lambda op, content: [] if op == 0x0B else [(op, content)])
    whole(file)


@pytest.mark.parametrize("what", ["times", "chunk", "summary", "channel", "offsets"])
def test_mcap_index_that_lies_hides_nothing_from_a_time(tmp_path, what):
    file = mcap(tmp_path)

    def change(op, content):
        late = struct.pack("<QQ", START + 10**12, START + 10**12)
        if what == "times" and op == 0x07:
            entries = np.frombuffer(content[6:], "<u8").copy()
            entries[::2] += np.uint64(10**12)
            content = content[:6] + entries.tobytes()
        elif what == "offsets" and op == 0x07:
            entries = np.frombuffer(content[6:], "<u8").copy()
            entries[1::2] += np.uint64(10**12)
            content = content[:6] + entries.tobytes()
        elif what == "channel" and op == 0x07:
            content = struct.pack("<H", 77) + content[2:]
        elif (what == "chunk" and op == 0x06) or (what == "summary" and op == 0x08):
            content = late + content[16:]
        return [(op, content)]

    rewrite_mcap(file, change)
    whole(file, "has a wrong index" if what in ("times", "channel") else "")
    assert numbers(file, start_s=1.0, duration_s=1.0)[0] == list(range(10, 20))


def test_mcap_summary_with_another_topic_is_not_believed(tmp_path):
    file = mcap(tmp_path)

    def change(op, content):
        return [(op, content.replace(FRONT.encode(), b"/liars/image_raw")[: len(content)])]

    data = file.read_bytes()
    (start,) = struct.unpack_from("<Q", data, len(data) - 28)
    assert len(FRONT) == len("/liars/image_raw") == 16
    file.write_bytes(data[:start] + data[start:].replace(FRONT.encode(), b"/liars/image_raw"))
    whole(file, f"its summary calls a topic /liars/image_raw ({IMAGE}) that is {FRONT}")


def test_mcap_chunks_out_of_order_are_read_in_order(tmp_path):
    swapped = [*range(20, 30), *range(10), *range(10, 20)]
    file = mcap(tmp_path, log=lambda i: START + i * PERIOD)
    other = tmp_path / "swapped"
    from rosbags.rosbag2 import StoragePlugin, Writer

    with Writer(other, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection(FRONT, IMAGE, typestore=TYPES)
        for i in swapped:
            message = image(TYPES, START + i * PERIOD, i, 330)
            writer.write(connection, START + i * PERIOD, TYPES.serialize_cdr(message, IMAGE))
    whole(other)
    assert numbers(other, start_s=0.5, duration_s=1.0)[0] == list(range(5, 15))
    assert file.is_file()


def test_mcap_chunk_with_a_wrong_checksum_is_named(tmp_path):
    file = mcap(tmp_path)
    data = bytearray(file.read_bytes())
    at = data.index(b"\x06", 8 + 9 + 10)
    chunks = []
    at = 8
    while data[at] != 0x0F:
        if data[at] == 0x06:
            chunks.append(at)
        at += 9 + struct.unpack_from("<Q", data, at + 1)[0]
    struct.pack_into("<I", data, chunks[1] + 9 + 24, 1234)
    file.write_bytes(data)
    found, problems, _ = numbers(file)
    assert found == list(range(30))
    assert f"the chunk at byte {chunks[1]} of bag.mcap is damaged (its checksum" in problems[0]


@pytest.mark.parametrize("destroyed", [8, 60])
def test_mcap_with_a_damaged_length_is_read_on_from_the_next_chunk(tmp_path, destroyed):
    file = mcap(tmp_path)
    data = bytearray(file.read_bytes())
    at, chunks = 8, []
    while data[at] != 0x0F:
        if data[at] == 0x06:
            chunks.append(at)
        at += 9 + struct.unpack_from("<Q", data, at + 1)[0]
    data[chunks[1] + 1 : chunks[1] + 1 + destroyed] = b"\x7f" * destroyed
    file.write_bytes(data)
    found, problems, _ = numbers(file)
    assert "bag.mcap is damaged at byte" in problems[0] and found[:3] == [0, 1, 2]
    if destroyed == 8:  # only the length of the record
        assert found == list(range(30))
    else:
        assert 20 <= len(found) < 30 and found[-1] == 29
        assert f"{30 - len(found)} messages are missing" in problems[0]


def test_mcap_of_another_profile_with_attachments_is_read(tmp_path):
    file = mcap(tmp_path)
    extra = (
        struct.pack("<QQI", 1, 1, 1) + b"a" + struct.pack("<I", 1) + b"b" + struct.pack("<QI", 0, 0)
    )
    data = file.read_bytes()
    head = struct.pack("<BQ", 0x09, len(extra)) + extra + struct.pack("<BQ", 0x80, 3) + b"own"
    (size,) = struct.unpack_from("<Q", data, 9)
    at = 17 + size
    header = struct.pack("<BQ", 1, 8) + bytes(8)
    footer = struct.pack("<BQQQI", 2, 20, 0, 0, 0)
    (start,) = struct.unpack_from("<Q", data, len(data) - 28)
    file.write_bytes(data[:8] + header + head + data[at:start] + footer + data[-8:])
    whole(file)


def test_mcap_of_other_serialisations_and_spellings(tmp_path):
    ros1, cdr = (
        [bytes(f(image(t, START + i * PERIOD, i), IMAGE)) for i in range(30)]
        for t, f in ((TYPES1, TYPES1.serialize_ros1), (TYPES, TYPES.serialize_cdr))
    )
    short = IMAGE.replace("/msg", "")
    file = tmp_path / "run.mcap"
    write_plain_mcap(file, [(FRONT, short, "cdr", cdr)])
    whole(file)
    write_plain_mcap(file, [(FRONT, short, "ros1", ros1)])
    whole(file)
    write_plain_mcap(file, [(FRONT, "foxglove.RawImage", "json", [b"{}"] * 2)])
    with pytest.raises(SourceError, match=r"it has /front/image_raw \(foxglove.RawImage in json\)"):
        open_source(file)
    write_plain_mcap(file, [(FRONT, IMAGE, "json", [b"{}"] * 2), (FRONT, IMAGE, "cdr", cdr)])
    missing(file, range(30), f"2 messages of {FRONT} are {IMAGE} in json, and are left out")


def test_mcap_without_chunks_is_read(tmp_path):
    file = tmp_path / "run.mcap"
    messages = [
        bytes(TYPES.serialize_cdr(image(TYPES, START + i * PERIOD, i), IMAGE)) for i in range(30)
    ]
    write_plain_mcap(file, [(FRONT, IMAGE, "cdr", messages)])
    whole(file)
    assert numbers(file, start_s=1.0, duration_s=0.5)[0] == list(range(10, 15))


# SQLite


def test_rows_of_a_write_ahead_log_are_read_and_nothing_is_written(tmp_path):
    bag = write(tmp_path / "bag", "sqlite3")
    target = leave_journal(bag / "bag.db3", tmp_path / "killed")
    before = listing(target.parent)
    assert set(before) == {"bag.db3", "bag.db3-wal"}
    whole(target)
    whole(target.parent)
    target.parent.chmod(0o555)
    whole(target.parent)
    assert listing(target.parent) == before


def test_write_ahead_log_that_is_cut_off_and_a_journal_are_named(tmp_path):
    bag = write(tmp_path / "bag", "sqlite3")
    target = leave_journal(bag / "bag.db3", tmp_path / "killed")
    log = target.with_name("bag.db3-wal")
    os.truncate(log, log.stat().st_size - 100)
    missing(
        target, range(15), "bag.db3-wal ends within a transaction or is damaged: 5 of its 5 pages"
    )
    os.truncate(log, 10)
    missing(
        target, range(15), "bag.db3-wal ends within a transaction or is damaged: 1 of its 1 pages"
    )
    assert set(listing(target.parent)) == {"bag.db3", "bag.db3-wal"}
    log.unlink()
    target.with_name("bag.db3-journal").write_bytes(b"x" * 600)
    missing(
        target, range(15), "bag.db3-journal exists: its recorder was stopped within a transaction"
    )


def test_rows_out_of_order_of_one_time_and_without_data(tmp_path):
    bag = write(tmp_path / "bag", "sqlite3", log=lambda i: START - i * PERIOD)
    with sqlite3.connect(bag / "bag.db3") as database:
        database.execute("update messages set timestamp = ? - timestamp", (2 * START,))
    (bag / "metadata.yaml").unlink()
    whole(bag)
    with sqlite3.connect(bag / "bag.db3") as database:
        database.execute("update messages set timestamp = ?", (START,))
    whole(bag, "the log's times of its images 0.000 s")
    with sqlite3.connect(bag / "bag.db3") as database:
        database.execute("update messages set data = x'' where id in (1, 2)")
        database.execute("update messages set topic_id = 9 where id = 3")
    found, problems, _ = numbers(bag)
    assert found == list(range(3, 30))
    assert "1 message of bag.db3 is left out: it is of topic number 9" in problems[0]
    assert f"2 messages of {FRONT} hold no data" in problems[1]


def test_index_of_an_sqlite_file_hides_no_row(tmp_path):
    bag = write(tmp_path / "bag", "sqlite3")
    with sqlite3.connect(bag / "bag.db3") as database:
        database.execute("drop index timestamp_idx")
        database.execute("create table spare as select * from messages where id <= 10")
        database.execute("create index timestamp_idx on spare (timestamp)")
    whole(bag)


# ROS 1


@pytest.mark.slow
@pytest.mark.parametrize("compression", ["", "bz2", "lz4"])
@pytest.mark.parametrize("name", ["run.bag", "run.bag.active"])
def test_ros1_bag_that_was_not_closed_is_read(tmp_path, name, compression):
    file = write_ros1(tmp_path / "run.bag", size=330, compression=compression)
    whole(file)
    data = bytearray(file.read_bytes())
    at = data.index(b"index_pos=") + len(b"index_pos=")
    (index,) = struct.unpack_from("<Q", data, at)
    data[at : at + 8] = bytes(8)
    (tmp_path / name).write_bytes(data[:index])
    whole(tmp_path / name, "has no index, because its recorder did not finish it")


@pytest.mark.parametrize("compression", ["", "lz4"])
def test_ros1_bag_damaged_within_is_read_on_from_the_next_chunk(tmp_path, compression):
    file = write_ros1(tmp_path / "run.bag", size=330, compression=compression)
    data = bytearray(file.read_bytes())
    chunks = [m.start() for m in re.finditer(rb"op=\x05", bytes(data))]
    at = chunks[1]
    data[at : at + 4] = b"\xff" * 4
    file.write_bytes(data)
    found, problems, _ = numbers(file)
    assert 20 <= len(found) < 30 and (found[0], found[-1]) == (0, 29)
    assert "read on from byte" in problems[0]
    assert f"{30 - len(found)} messages are missing" in problems[0]


@pytest.mark.parametrize("kind", ["mcap", "ros1"])
def test_files_that_were_joined_are_said(tmp_path, kind):
    if kind == "mcap":
        (file,) = write(tmp_path / "bag").glob("*.mcap")
    else:
        file = write_ros1(tmp_path / "run.bag")
    data = file.read_bytes()
    joined = tmp_path / f"joined{file.suffix}"
    joined.write_bytes(data + data)
    found, problems, _ = numbers(joined)
    assert found == list(range(30)) and f"{len(data)} bytes" in problems[0]


def test_ros1_index_that_lies_is_said(tmp_path):
    file = write_ros1(tmp_path / "run.bag", size=330)
    data = bytearray(file.read_bytes())
    (count,) = struct.unpack_from("<I", data, len(data) - 4)  # of the last chunk's only topic
    struct.pack_into("<I", data, len(data) - 4, count + 7)
    file.write_bytes(data)
    missing(file, range(30), f"promises 37 messages on {FRONT}, where 30 are: 7 messages")


@pytest.mark.parametrize("place", [13, 5000, 1 << 40])
def test_ros1_index_that_is_elsewhere_doubles_and_hides_nothing(tmp_path, place):
    file = write_ros1(tmp_path / "run.bag", size=330)
    data = bytearray(file.read_bytes())
    struct.pack_into("<Q", data, data.index(b"index_pos=") + len(b"index_pos="), place)
    file.write_bytes(data)
    assert numbers(file)[0] == list(range(30))


# Times


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("absurd", [0, 3600 * 10**9, START - 86400 * 40 * 10**9])
def test_messages_of_a_clock_that_was_not_set_are_no_start(tmp_path, storage, absurd):
    bag = write(tmp_path / "bag", storage, log=lambda i: absurd if i < 3 else START + i * PERIOD)
    whole(bag, f"3 messages (3 of {FRONT}) are logged at ")
    assert numbers(bag, start_s=1.0)[0] == list(range(13, 30))
    assert BagFile(bag).start_ns == START + 3 * PERIOD


@pytest.mark.slow
@pytest.mark.parametrize("absurd", [2**64 - 1, 2**63, 4 * 10**18])
def test_messages_of_a_time_far_ahead_are_read_last(tmp_path, absurd):
    bag = write(tmp_path / "bag", log=lambda i: absurd if i > 26 else START + i * PERIOD)
    whole(bag, f"3 messages (3 of {FRONT}) are logged at ")
    assert numbers(bag, start_s=1.0, duration_s=1.0)[0] == list(range(10, 20))


def test_images_without_a_stamp_are_counted(tmp_path):
    bag = write(tmp_path / "bag", "sqlite3")
    with sqlite3.connect(bag / "bag.db3") as database:
        for i in range(4):
            data = bytes(TYPES.serialize_cdr(image(TYPES, 0, i), IMAGE))
            database.execute("update messages set data = ? where id = ?", (data, i + 1))
    whole(bag, f"4 of 30 images of {FRONT} have no stamp: the log's time is taken for it")


def test_images_of_several_frames_on_one_topic_are_said(tmp_path):
    with RecordingWriter(tmp_path / "bag", "mcap") as bag:
        for i in range(6):
            pixels = np.zeros((4, 4, 3), np.uint8)
            bag.image(FRONT, START + i * PERIOD, ("left", "right")[i % 3 == 0], pixels)
    expected = (
        f"the images of {FRONT} have 2 values of frame_id, 'left' (4), 'right' (2): one camera is "
        "taken"
    )
    with open_source(tmp_path / "bag") as source:
        assert len(list(source)) == 6 and any(expected in note for note in source.notes)
    notes = open_dataset("rosbag", tmp_path / "bag", split="train").notes
    assert any(expected in note for note in notes)


def test_start_behind_the_end_is_said(tmp_path):
    bag = write(tmp_path / "bag")
    with open_source(bag, start_s=100.0) as source:
        assert list(source) == []
        assert "lasts 2.900 s, and 100 s are to be skipped: nothing is read" in source.problems[0]
    with open_source(bag, start_s=2.0) as source:
        assert len(list(source)) == 10 and source.problems == []


def test_log_that_runs_otherwise_than_the_stamps_is_said(tmp_path):
    bag = write(tmp_path / "bag", log=lambda i: START)
    whole(bag, f"the stamps of {FRONT} span 2.900 s, and the log's times of its images 0.000 s")
    fast = write(tmp_path / "fast", log=lambda i: START + i * PERIOD // 2)
    whole(fast, "the log's times of its images 1.450 s")
    whole(write(tmp_path / "again", log=lambda i: START + 10**15 + i * PERIOD))


def test_stamps_that_repeat_are_counted(tmp_path):
    with RecordingWriter(tmp_path / "bag") as bag:
        for i in range(20):
            header = bag.header(START + i // 5 * PERIOD, "camera")
            make = bag.types[IMAGE]
            pixels = np.full(192, i, np.uint8)
            bag.write(FRONT, START + i * PERIOD, make(header, 8, 8, "rgb8", 0, 24, pixels))
    found, problems, notes = numbers(tmp_path / "bag")
    assert found == list(range(20)) and problems == []
    assert f"16 of 20 images of {FRONT} have the stamp of the image before" in notes[0]
    with pytest.raises(SourceError, match="stamps must increase; bad_poses=skip"):
        open_dataset("rosbag", tmp_path / "bag", pose_source="none")
    options = {"pose_source": "none", "bad_poses": "skip", "split": "test"}
    splits = open_dataset("rosbag", tmp_path / "bag", **options)
    assert len(splits.test) == 4 and any(
        "16" in n and "does not increase" in n for n in splits.notes
    ), splits.notes


# Every command


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_tiny_bundle(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """A drive with truth that lacks ten of the images that its metadata promise."""
    bag = write_drive(tmp_path_factory.mktemp("short") / "drive", count=70)

    def change(about):
        for topic in about["topics_with_message_count"]:
            if topic["topic_metadata"]["name"] == IMAGE_TOPIC:
                topic["message_count"] += 10
        about["message_count"] += 10

    edit_metadata(bag, change)
    return bag


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("infer --model {model} --engine onnx {bag}", 1),
        ("evaluate --model {model} --engine onnx --bag {bag} --resamples 0 --output {out}", 0),
        ("data inspect rosbag {bag} --output {out}", 0),
        ("map build {out}.map {bag} --model {model} --engine onnx", 0),
        ("filter --bag {bag} --model {model} --resamples 0 --output {out}", 0),
        ("stress --bag {bag} --model {model} --engine onnx --degradations dark --output {out}", 0),
        ("calibrate {model} --bag {bag} --output {out} --heads pose", 0),
        ("profile {bag} --model {model} --engine onnx --frames 3 --output {out}.json", 0),
    ],
)
def test_each_command_says_what_a_recording_lacks(words, status, short, model, tmp_path, capfd):
    arguments = words.format(model=model, bag=short, out=tmp_path / "out").split()
    assert main(arguments) == status
    said = " ".join("".join(capfd.readouterr()).split())
    assert "10 messages are missing" in said, said


# Nothing at all


def test_recording_of_which_nothing_can_be_read_is_refused(tmp_path):
    bag = write_splits(tmp_path / "bag")
    for file in bag.glob("*.mcap"):
        file.unlink()
    with pytest.raises(SourceError, match="rec_0.mcap.*is in metadata.yaml and not in the folder"):
        open_source(bag)
    (tmp_path / "old.bag").write_bytes(b"#ROSBAG V1.2\n" + bytes(100))
    with pytest.raises(SourceError, match="rosbag migrate"):
        open_source(tmp_path / "old.bag")
    write_metadata(bag, {})
    with pytest.raises(SourceError, match="has no file of a rosbag2"):
        open_source(bag)
