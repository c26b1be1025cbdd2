"""The file of a place map under power cuts, full disks, other processes and damage."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from place_maps import DIMENSION, assert_same, keyframe, make_map, unit
from place_worker import Worker
from ros_helpers import python_path

from robot_vision.places.index.index import PlaceIndex
from robot_vision.places.index.index_cache import refresh
from robot_vision.places.map.base import MapBusyError, MapError, MapReadOnlyError
from robot_vision.places.map.opening import open_map

ROOT = Path(__file__).resolve().parents[2]


def run_script(script: str, *arguments: object, prefix: tuple[str, ...] = ()) -> str:
    """Runs Python of its own with this folder's helpers; returns what it prints."""
    environment = {**os.environ, "PYTHONPATH": python_path(ROOT, ROOT / "test" / "support")}
    command = [*prefix, sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.slow
def test_what_was_acknowledged_survives_kill_9_in_a_loop(tmp_path: Path) -> None:
    path = tmp_path / "home.map"
    make_map(path).close()
    rng = np.random.default_rng(5)
    acknowledged: list[int] = []
    number, in_flight, kills = 0, 0, 0
    # A busy machine does less between two kills, and has to be killed more often.
    while kills < 15 or len(acknowledged) <= 60 or not in_flight:
        assert kills < 100, "the loop killed nothing in flight"
        kills += 1
        worker = Worker(path)
        end = time.monotonic() + rng.uniform(0.0, 0.04)
        while time.monotonic() < end:
            worker.do("add", [number])
            acknowledged.append(number)
            number += 1
        size = int(rng.integers(1, 60))
        worker.pipe.send(("add", list(range(number, number + size))))
        time.sleep(rng.uniform(0.0, 0.006))  # before, during and after the commit
        worker.kill()
        with open_map(path) as places:
            places.check()
            stamps = set(places.poses().stamps_ns - 1_700_000_000_000_000_000)
            started = set(range(number, number + size))
            assert set(acknowledged) <= stamps <= set(acknowledged) | started
            assert not started & stamps or started <= stamps, "half a batch"
            if started <= stamps:
                acknowledged += sorted(started)
            else:
                in_flight += 1
        number += size
    with open_map(path) as places:
        for read, expected in zip(places.keyframes(), acknowledged, strict=True):
            assert_same(read, keyframe(expected), ids=False)


class Interleaving(RuleBasedStateMachine):
    """Any order of adds, removals, structure, searches, kills and reopening, against a plain dictionary."""

    @initialize()
    def start(self) -> None:
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "home.map"
        make_map(self.path).close()
        self.worker = Worker(self.path)
        self.reader = open_map(self.path, "read")
        self.index = PlaceIndex(DIMENSION)
        self.known: dict[int, int] = {}  # id to number
        self.structure: dict[int, bytes] = {}
        self.number = 0

    @rule(size=st.integers(1, 4))
    def add(self, size: int) -> None:
        numbers = list(range(self.number, self.number + size))
        ids = self.worker.do("add", numbers)
        assert not set(ids) & self.known.keys()
        self.known.update(zip(ids, numbers, strict=True))
        self.number += size

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        gone = data.draw(st.lists(st.sampled_from(sorted(self.known)), max_size=3))
        assert self.worker.do("remove", gone) == len(set(gone))
        for number in set(gone):
            del self.known[number]
            self.structure.pop(number, None)

    @precondition(lambda self: self.known)
    @rule(data=st.data(), blob=st.binary(max_size=20))
    def set_structure(self, data: st.DataObject, blob: bytes) -> None:
        number = data.draw(st.sampled_from(sorted(self.known)))
        self.worker.do("structure", (number, blob))
        self.structure[number] = blob

    @rule(size=st.integers(1, 4), wait_s=st.sampled_from([0.0, 0.0005, 0.002, 0.01]))
    def kill_while_adding(self, size: int, wait_s: float) -> None:
        numbers = list(range(self.number, self.number + size))
        self.worker.pipe.send(("add", numbers))
        time.sleep(wait_s)
        self.worker.kill()
        self.number += size
        self.worker = Worker(self.path)
        poses = self.reader.poses()
        new = {i: s for i, s in zip(poses.ids, poses.stamps_ns, strict=True) if i not in self.known}
        added = {int(i): int(s) - 1_700_000_000_000_000_000 for i, s in new.items()}
        assert sorted(added.values()) in ([], numbers)
        self.known.update(added)

    @rule()
    def reopen(self) -> None:
        self.worker.quit()
        self.reader.close()
        self.worker = Worker(self.path)
        self.reader = open_map(self.path, "read")

    @rule(seed=st.integers(0, 99), k=st.integers(1, 5))
    def query(self, seed: int, k: int) -> None:
        refresh(self.index, self.reader)
        found, similarities = self.index.search(unit(seed), k)
        ids = sorted(self.known)
        vectors = np.array([unit(self.known[i]) for i in ids]).reshape(-1, DIMENSION)
        expected = np.sort(vectors @ unit(seed))[::-1][:k]
        np.testing.assert_allclose(similarities[0][: len(expected)], expected, atol=1e-5)
        assert set(found[0].tolist()) <= set(ids) | {-1}
        assert np.all(found[0][len(expected) :] == -1)

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "reader"):
            return
        assert self.reader.poses().ids.tolist() == sorted(self.known)
        assert {
            int(i): self.reader.structure(int(i)) for i in self.reader.structure_ids()
        } == self.structure

    def teardown(self) -> None:
        if hasattr(self, "reader"):
            for number in self.known:
                assert_same(self.reader.get(number), keyframe(self.known[number]), ids=False)
            self.reader.check()
            self.reader.close()
            self.worker.quit()
            self.folder.cleanup()


TestInterleaving = pytest.mark.slow(Interleaving.TestCase)
TestInterleaving.settings = settings(
    max_examples=8,
    stateful_step_count=12,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


FILL = """
import resource, sys
from place_maps import keyframe, make_map
from robot_vision.places.map.base import MapFullError, MapError
from robot_vision.places.map.opening import open_map
path, limit = sys.argv[1], int(sys.argv[2])
places = make_map(path)
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
added = []
try:
    for i in range(100000):
        added.append(places.add(keyframe(i, thumbnail=bytes(20000))))
except MapFullError as error:
    assert "no room is left" in str(error) and "\\n" not in str(error), error
else:
    raise SystemExit("the disk never filled up")
assert len(places) == len(added)                # recognition goes on
assert places.descriptors()[1].shape[0] == len(added)
for _ in range(3):                              # and so does trying
    try:
        added.append(places.add(keyframe(200000 + len(added), thumbnail=bytes(20000))))
    except MapFullError:
        pass
if limit:                                       # room is made: mapping goes on
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
else:
    import os
    os.unlink(sys.argv[3])
    added.append(places.add(keyframe(300000, thumbnail=bytes(20000))))
places.close()
if not limit:
    places = open_map(path)
    places.check()
    assert places.poses().ids.tolist() == added, (len(places), len(added))
print(len(added))
"""


@pytest.mark.slow
def test_a_full_disk_loses_nothing_and_mapping_goes_on_after_it(tmp_path: Path) -> None:
    mount = tmp_path / "disk"
    mount.mkdir()
    script = tmp_path / "fill.py"
    script.write_text(FILL)
    environment = {**os.environ, "PYTHONPATH": python_path(ROOT, ROOT / "test" / "support")}
    command = (
        f"mount -t tmpfs -o size=4m none {mount} && head -c 1500000 /dev/zero > {mount}/ballast && "
        f"exec {sys.executable} {script} {mount}/home.map 0 {mount}/ballast"
    )
    run = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command],
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    if "unshare" in run.stderr or "mount:" in run.stderr:
        pytest.skip(f"no disk of four megabytes can be mounted here: {run.stderr.strip()}")
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 20


ON_A_FULL_DISK = """
import os, sys
from place_maps import keyframe, make_map
from robot_vision.cli import main
disk, elsewhere = sys.argv[1:]
path, copy = f"{disk}/home.map", f"{elsewhere}/copy.map"
with make_map(path) as places:
    ids = places.add_many(keyframe(i, thumbnail=bytes(20000)) for i in range(50))
handle = os.open(f"{disk}/ballast", os.O_CREAT | os.O_WRONLY)
try:
    while os.write(handle, bytes(4096)):
        pass
except OSError:
    pass
for command in (["info", path], ["check", path], ["export", path, "--output", f"{copy}.csv"]):
    assert main(["map", *command]) == 0, command
assert main(["map", "prune", path, "--ids", "1"]) == 2         # says to do this:
assert main(["map", "copy", path, copy]) == 0
assert main(["map", "prune", copy, "--ids", *map(str, ids[:40])]) == 0
os.unlink(path)
os.rename(copy, f"{elsewhere}/home.map")
with open(f"{elsewhere}/home.map", "rb") as source, open(path, "wb") as target:
    target.write(source.read())
assert main(["map", "prune", path, "--ids", "41"]) == 0        # there is room again
assert main(["map", "check", path]) == 0
"""


@pytest.mark.slow
def test_a_map_on_a_full_disk_can_be_read_and_pruned_as_the_message_says(tmp_path: Path) -> None:
    disk, elsewhere = tmp_path / "disk", tmp_path / "elsewhere"
    disk.mkdir()
    elsewhere.mkdir()
    script = tmp_path / "full.py"
    script.write_text(ON_A_FULL_DISK)
    environment = {**os.environ, "PYTHONPATH": python_path(ROOT, ROOT / "test" / "support")}
    command = (
        f"mount -t tmpfs -o size=4m none {disk} && "
        f"exec {sys.executable} {script} {disk} {elsewhere}"
    )
    run = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command],
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    if "unshare" in run.stderr or "mount:" in run.stderr:
        pytest.skip(f"no disk of four megabytes can be mounted here: {run.stderr.strip()}")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "copy the map to another disk with robot-vision map copy" in run.stderr
    assert "9 keyframes, all as they were written" in run.stdout


@pytest.mark.slow
def test_a_limit_on_file_sizes_is_a_full_disk_too(tmp_path: Path) -> None:
    path = tmp_path / "home.map"
    added = int(run_script(FILL, path, 1_500_000))
    with open_map(path) as places:
        places.check()
        assert len(places) == added > 10


def test_a_map_locked_by_another_process_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robot_vision.places.map.sqlite_file.BUSY_S", 0.2)
    path = tmp_path / "home.map"
    make_map(path).close()
    script = """
    import sqlite3, sys
    db = sqlite3.connect(sys.argv[1], isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    print("locked", flush=True)
    sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"locked\n"
        with pytest.raises(MapBusyError, match=r"locked by another process for more than 0\.2 s"):
            open_map(path)
        with open_map(path, "read") as places:  # readers never wait
            assert len(places) == 0
        assert other.stdin is not None
        other.stdin.close()
        other.wait()
    with open_map(path) as places:
        assert places.add(keyframe(1)) == 1


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_map_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "home.map"
    with make_map(path) as places:
        places.add_many(keyframe(i) for i in range(200))
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.raises(MapError, match=r"damaged|is empty") as caught:
        open_map(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_flipped_bits_are_found_where_sqlite_sees_none(tmp_path: Path) -> None:
    path = tmp_path / "home.map"
    with make_map(path) as places:
        places.add_many(keyframe(i) for i in range(20))
    data = bytearray(path.read_bytes())
    at = data.index(unit(7).tobytes())
    data[at + 5] ^= 1
    path.write_bytes(data)
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with open_map(path) as places:
        with pytest.raises(MapError, match="descriptor of keyframe 8 is not as it was written"):
            places.descriptors()
        with pytest.raises(MapError, match="keyframe 8"):
            places.check()
        assert_same(places.get(3), keyframe(2), ids=False)


def test_files_that_are_no_maps_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("not a map\n" * 1000)
    with pytest.raises(MapError, match="damaged"):
        open_map(text)
    other = tmp_path / "other.db"
    with contextlib.closing(sqlite3.connect(other)) as db:
        db.execute("CREATE TABLE t (x)")
    with pytest.raises(MapError, match="SQLite file of something else"):
        open_map(other)
    (tmp_path / "nothing.db").touch()
    for mode in ("read", "write"):
        with pytest.raises(MapError, match="is empty and no place map: copy"):
            open_map(tmp_path / "nothing.db", mode)
    with pytest.raises(MapError, match="is a folder and no map"):
        open_map(tmp_path)


def test_a_map_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "home.map"
    make_map(path).close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 7")
    with pytest.raises(MapError, match="version 7, and this robot_vision reads up to 1: install"):
        open_map(path)


def test_a_read_only_file_and_folder_can_be_read(tmp_path: Path) -> None:
    """Runs as a user without root's rights, whom the modes concern."""
    path = tmp_path / "maps" / "home.map"
    with make_map(path) as places:
        places.add_many(keyframe(i) for i in range(3))
    path.chmod(0o444)
    path.parent.chmod(0o555)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
        if folder.name.startswith("pytest-of"):
            break
    script = """
    import os, sys
    import robot_vision.places.map.sqlite_map  # while it may be read
    from robot_vision.places.map.base import MapReadOnlyError
    from robot_vision.places.map.opening import open_map
    if os.getuid() == 0:
        os.setgid(65534); os.setuid(65534)
    try:
        open_map(sys.argv[1])
    except MapReadOnlyError as error:
        print(error)
    with open_map(sys.argv[1], "read") as places:
        print(len(places))
    """
    said = run_script(script, path).splitlines()
    path.parent.chmod(0o755)
    assert "cannot be written: open it for reading" in said[0]
    assert said[1] == "3"
    assert sorted(p.name for p in path.parent.iterdir()) == ["home.map"]


@pytest.mark.slow
def test_a_map_on_a_read_only_disk_can_be_read(tmp_path: Path) -> None:
    """Not even root can write there."""
    disk = tmp_path / "disk"
    with make_map(disk / "home.map") as places:
        places.add_many(keyframe(i) for i in range(3))
    with make_map(disk / "cut.map") as places:  # of a robot whose power was cut
        places.add(keyframe(1))
        for end in ("", "-wal"):
            shutil.copy(f"{disk}/cut.map{end}", f"{disk}/left.map{end}")
    command = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    mounted = ("unshare", "-rm", "sh", "-c", command, str(disk))
    if subprocess.run([*mounted, "true"], capture_output=True, timeout=30).returncode:
        pytest.skip("no disk can be mounted read-only here")
    script = """
    import os, sys
    from place_maps import make_map
    from robot_vision.cli import main
    from robot_vision.places.map.opening import MapError, open_map

    def said(act, *arguments):
        try:
            with act(*arguments) as places:
                return len(places)
        except MapError as error:
            return f"{type(error).__name__} {error}"

    disk = sys.argv[1]
    print(said(open_map, f"{disk}/home.map", "read"))
    print(said(open_map, f"{disk}/home.map"))
    print(said(open_map, f"{disk}/left.map", "read"))
    print(said(make_map, f"{disk}/new.map"))
    sys.stderr = sys.stdout
    print(main(["map", "prune", f"{disk}/home.map", "--ids", "1"]))
    """
    before = sorted(path.name for path in disk.iterdir())
    read, write, left, new, prune, status = run_script(script, disk, prefix=mounted).splitlines()
    assert read == "3"
    assert write.startswith("MapReadOnlyError") and "open it for reading" in write
    assert left.startswith("MapError") and "copy the map with them to a folder" in left
    assert new.startswith("MapError") and "Read-only file system" in new
    assert (prune.split(": ", 1)[0], status) == ("robot-vision map", "2")
    assert "cannot be written" in prune
    assert sorted(path.name for path in disk.iterdir()) == before


@pytest.mark.slow
def test_a_disk_that_becomes_read_only_under_a_map_is_not_called_full(tmp_path: Path) -> None:
    """What Linux makes of a failing memory card; needs the rights to mount an image of one."""
    image, disk = tmp_path / "card.img", tmp_path / "card"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(16 << 20)
    command = 'mount -o loop,errors=remount-ro "$0" "$1" && shift && exec "$@"'
    mounted = ("unshare", "-m", "sh", "-c", command, str(image), str(disk))
    for command_line in (["mkfs.ext4", "-q", "-F", str(image)], [*mounted, "true"]):
        if (
            not shutil.which(command_line[0])
            or subprocess.run(command_line, capture_output=True, timeout=60).returncode
        ):
            pytest.skip("no image of a disk can be mounted here")
    script = """
    import os, sys
    from pathlib import Path
    from place_maps import keyframe, make_map
    from robot_vision.places.map.base import MapReadOnlyError

    disk = Path(sys.argv[1])
    major, minor = os.major(disk.stat().st_dev), os.minor(disk.stat().st_dev)
    name = Path(f"/sys/dev/block/{major}:{minor}").resolve().name
    fail = Path(f"/sys/fs/ext4/{name}/trigger_fs_error")
    assert name.startswith("loop") and fail.exists()  # and never a disk that is somebody's
    with make_map(disk / "home.map") as places:
        places.add_many(keyframe(i) for i in range(3))
        fail.write_text("a test of robot_vision")
        for number in (10, 11):
            try:
                places.add(keyframe(number))
            except MapReadOnlyError as error:
                print(error)
        print(len(places), places.descriptors()[1].shape)
    """
    first, second, read = run_script(script, disk, prefix=mounted).splitlines()
    assert first == second and "its disk has become read-only" in first
    assert read == "3 (3, 16)"


def test_a_kill_while_a_map_is_made_leaves_no_half_map(tmp_path: Path) -> None:
    (tmp_path / ".home.map.left_over").write_bytes(b"of a process that was killed")
    with make_map(tmp_path / "home.map") as places:
        assert len(places) == 0
    with pytest.raises(MapError, match="exists already"):
        make_map(tmp_path / "home.map")
    with pytest.raises(MapError, match="cannot be written"):
        make_map(tmp_path / ".home.map.left_over" / "x.map")


@pytest.mark.slow
def test_ten_thousand_keyframes_in_one_spot_are_kept_and_found(tmp_path: Path) -> None:
    path = tmp_path / "spot.map"
    here = unit(1)
    with make_map(path) as places:
        places.add(keyframe(0))
        places.add_many(
            keyframe(i, descriptor=here, position=np.zeros(3), thumbnail=None, covariance=None)
            for i in range(1, 10_001)
        )
        index = PlaceIndex(DIMENSION)
        refresh(index, places)
        found, similarities = index.search(here, 10)
        assert len(index) == 10_001
        assert len(set(found[0].tolist())) == 10 and 1 not in found[0]
        np.testing.assert_allclose(similarities, 1, atol=1e-3)
        assert index.search(unit(0), 1)[0][0, 0] == 1  # the other place is still found


def test_writing_from_a_map_opened_for_reading_while_another_writes(tmp_path: Path) -> None:
    path = tmp_path / "home.map"
    with make_map(path) as writer, open_map(path, "read") as reader:
        writer.add(keyframe(1))
        assert len(reader) == 1
        with pytest.raises(MapReadOnlyError):
            reader.add(keyframe(2))


def test_a_map_that_was_replaced_is_not_written_to_and_leaves_its_successor_whole(
    tmp_path: Path,
) -> None:
    """SQLite keeps the log by the file's name, and would read that of the old map into the new one."""
    path, kept = tmp_path / "home.map", tmp_path / "kept.map"
    make_map(path).close()
    with make_map(tmp_path / "other.map") as other:
        other.add_many(keyframe(i) for i in range(100, 200))
    reader, writer = open_map(path, "read"), open_map(path)
    writer.add_many(keyframe(i) for i in range(50))
    assert len(reader) == 50
    path.rename(kept)
    (tmp_path / "other.map").rename(path)
    with pytest.raises(MapError, match="removed, or replaced by another file"):
        writer.add(keyframe(50))
    writer.close()
    reader.close()
    for name, count in ((path, 100), (kept, 50)):
        with open_map(name) as places:
            places.check()
            assert len(places) == count
    gone = open_map(path)
    path.unlink()
    with pytest.raises(MapError, match="removed, or replaced by another file"):
        gone.remove([1])
    gone.close()


@pytest.mark.slow
@pytest.mark.parametrize("state", ["writing", "killed", "read by another", "closed"])
def test_a_copy_of_the_file_alone_has_all_that_was_acknowledged(tmp_path: Path, state: str) -> None:
    path, copy = tmp_path / "home.map", tmp_path / "copy.map"
    make_map(path).close()
    reader = open_map(path, "read") if state == "read by another" else None
    worker = Worker(path)
    ids = worker.do("add", list(range(30)))
    worker.do("structure", (ids[0], b"points"))
    worker.do("remove", ids[-2:])
    if state == "killed":
        worker.kill()
    elif state == "closed":
        worker.quit()
    shutil.copy(path, copy)
    with open_map(copy, "read") as places:
        places.check()
        assert places.poses().ids.tolist() == ids[:-2]
        assert places.structure(ids[0]) == b"points"
    if state in ("writing", "read by another"):
        worker.quit()
    if reader is not None:
        reader.close()


def test_a_reader_in_the_middle_of_something_delays_the_file_and_loses_nothing(
    tmp_path: Path,
) -> None:
    path, copy = tmp_path / "home.map", tmp_path / "copy.map"
    with make_map(path) as places, contextlib.closing(sqlite3.connect(path)) as reader:
        places.add(keyframe(0))
        reader.isolation_level = None
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM map").fetchall()
        started = time.monotonic()
        places.add(keyframe(1))
        assert time.monotonic() - started < 2
        reader.execute("ROLLBACK")
        places.add(keyframe(2))
        shutil.copy(path, copy)
    with open_map(copy, "read") as places:
        assert len(places) == 3


def test_the_log_of_another_map_is_not_taken_for_that_of_the_one_put_here(tmp_path: Path) -> None:
    """A writer was killed between a commit and the emptying of its log, and another map put in place."""
    path, other = tmp_path / "home.map", tmp_path / "other.map"
    make_map(path).close()
    with make_map(other) as places:
        places.add_many(keyframe(i) for i in range(100, 140))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA wal_autocheckpoint = 0")
        db.execute("UPDATE map SET revision = 7")
        old, log = path.read_bytes(), Path(f"{path}-wal").read_bytes()
    path.write_bytes(other.read_bytes())
    Path(f"{path}-wal").write_bytes(log)
    for mode in ("read", "write"):
        with pytest.raises(MapError, match="is the log of another map"):
            open_map(path, mode)
    path.write_bytes(old)
    with open_map(path) as places:  # its own map
        assert places.revision == 7
    path.write_bytes(other.read_bytes())
    with open_map(path) as places:
        places.check()
        assert len(places) == 40


def test_a_log_without_its_map_is_not_taken_for_that_of_a_new_one(tmp_path: Path) -> None:
    path, elsewhere = tmp_path / "home.map", tmp_path / "moved.map"
    make_map(path).close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_autocheckpoint = 0")
        db.execute("UPDATE map SET frame_id = 'old'")
        db.commit()
        log = Path(f"{path}-wal").read_bytes()
    os.rename(path, elsewhere)
    Path(f"{path}-wal").write_bytes(log)
    with pytest.raises(MapError, match=r"home.map-wal exists without its map"):
        make_map(path)
    Path(f"{path}-wal").write_bytes(b"")
    make_map(path).close()
