"""No address shows a secret: in messages, the output of commands, diagnostics and errors of libpq."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
from place_maps import keyframe, make_map, server, server_uri

from robot_vision.cli import main
from robot_vision.errors import ConfigError, RobotVisionError
from robot_vision.places.map.opening import open_map
from robot_vision.ros.places.map_file import open_or_make
from robot_vision.text.address import name_in, shown, without_secrets

__all__ = ["server", "server_uri"]  # fixtures

SECRET = "Geheim"
# Every place in which an address may carry a secret, and what people make of it by mistake.
ADDRESSES = [
    f"postgresql://u:{SECRET}@127.0.0.1:9/db?map=hall",
    f"postgres://u:{SECRET}@127.0.0.1:9/db?map=hall",
    f"postgresql://u:%47{SECRET[1:]}@127.0.0.1:9/db?map=hall",
    f"postgresql://u:x%40{SECRET}%2F@127.0.0.1:9/db?map=hall",
    f"postgresql://u:x@{SECRET}@127.0.0.1:9/db?map=hall",
    f"postgresql://u:x/{SECRET}@127.0.0.1:9/db?map=hall",
    f"postgresql://u:x?{SECRET}@127.0.0.1:9/db?map=hall",
    f"postgresql://u:x#{SECRET}@127.0.0.1:9/db?map=hall",
    f"postgresql://u:x:{SECRET}@127.0.0.1:9/db?map=hall",
    f"postgresql://u:x {SECRET}@127.0.0.1:9/db?map=hall",
    f"postgresql://u:x%zz{SECRET}@127.0.0.1:9/db?map=hall",
    f"postgresql://:{SECRET}@127.0.0.1:9/db?map=hall",
    f"postgresql://u:{SECRET}@/db?host=/nowhere&map=hall",
    f"postgresql://u:{SECRET}",
    f"postgresql://u:{SECRET}@127.0.0.1:9,127.0.0.1:8/db?map=hall",
    f"postgresql://u:{SECRET}@[::1]:9/db?map=hall",
    f"postgresql://u@127.0.0.1:9/db?password={SECRET}&map=hall",
    f"postgresql://u@127.0.0.1:9/db?map=hall&password={SECRET}",
    f"postgresql://u@127.0.0.1:9/db?map=hall&password=x&{SECRET}",
    f"postgresql://u@127.0.0.1:9/db?map=hall&password=x@{SECRET}",
    f"postgresql://u@127.0.0.1:9/db?map=hall&password=x?{SECRET}",
    f"postgresql://u@127.0.0.1:9/db?map=hall&p%61ssword={SECRET}",
    f"postgresql://u@127.0.0.1:9/db?map=hall&passwrd={SECRET}",
    f"postgresql://u@127.0.0.1:9/db?map=hall&PASSWORD={SECRET}",
    f"postgresql://u@127.0.0.1:9/db?map=hall&passfile=/{SECRET}",
    f"postgresql://u@127.0.0.1:9/db?map=hall&sslpassword={SECRET}",
    f"postgresql://u@127.0.0.1:9/db?map=hall&sslkey=/{SECRET}",
    f"postgresql://u@127.0.0.1:9/db?map=hall&options=-c%20my.key={SECRET}",
    f"postgresql://u@127.0.0.1:9/db?map=hall&{SECRET}",
    f"postgresql://u@127.0.0.1:9/db?map=hall&user=x%3A{SECRET}%3D",
    f"postgresql://u@127.0.0.1:9/password%3D{SECRET}?map=hall",
    f"PostgreSQL://u:{SECRET}@127.0.0.1:9/db?map=hall",
    f"postgresql+psycopg://u:{SECRET}@127.0.0.1:9/db?map=hall",
    f"postgresql:/u:{SECRET}@127.0.0.1:9/db?map=hall",
    f"postgresql:u:{SECRET}@127.0.0.1:9/db?map=hall",
    f"postgres:u:{SECRET}@127.0.0.1:9/db?map=hall",
    f"postgresql:///u:{SECRET}@127.0.0.1:9/db?map=hall",
    f"postgresql:///db?host=/nowhere&password={SECRET}&map=hall",
    f"host=127.0.0.1 port=9 dbname=db user=u password={SECRET}",
    f"dbname=db password = '{SECRET}'",
    f"mysql://u:{SECRET}@127.0.0.1/db",
]


@pytest.mark.slow
@pytest.mark.parametrize("uri", ADDRESSES)
def test_no_address_shows_a_secret(
    uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PGPASSWORD", SECRET)
    secrets = (SECRET, SECRET[1:])
    assert not any(secret in shown(uri) for secret in secrets)
    assert shown(shown(uri)) == shown(uri)
    map_status = pytest.importorskip("robot_vision.ros.places.diagnostics").map_status
    entry = map_status("/places", uri, None, 0, "", False, 0)
    assert not any(secret in str(entry) for secret in secrets)
    for attempt in (lambda: open_map(uri, "read"), lambda: open_or_make(uri, None, 0, "map")):
        with pytest.raises(RobotVisionError) as caught:
            attempt()
        assert not any(secret in str(caught.value) for secret in secrets), str(caught.value)
    make_map(tmp_path / "home.map").close()
    commands = [
        ("info", uri),
        ("check", uri),
        ("export", uri),
        ("show", uri),
        ("prune", uri, "--ids", "1"),
        ("merge", uri, "home.map"),
        ("merge", "home.map", uri),
        ("copy", uri, "b.map"),
        ("copy", "home.map", uri, "--server-index"),
        ("info", "home.map", uri),  # one too many
        ("info", "home.map", "--jsonn", uri),
    ]
    for command in commands:
        try:
            status = main(["map", *command])
        except SystemExit as ended:  # argparse
            status = int(str(ended.code))
        assert status == 2, command
    told = "".join(capsys.readouterr())
    assert not any(secret in told for secret in secrets), told
    assert sorted(p.name for p in tmp_path.iterdir()) == ["home.map"]


def test_an_address_shows_what_tells_maps_apart() -> None:
    assert (
        shown(f"postgresql://robot:{SECRET}@db.local:5433/fleet?sslmode=require&map=hall")
        == "postgresql://robot@db.local:5433/fleet?sslmode=require&map=hall"
    )
    assert (
        shown(f"postgresql://u:{SECRET}@/f?host=/run/pg&passfile=/x&map=a")
        == "postgresql://u@/f?host=/run/pg&...&map=a"
    )
    for path in ("home.map", "~/maps/home.map", "/maps/a b=c.map", "./x:y.map"):
        assert shown(path) == path
    assert name_in(f"postgresql://u@h/db?map=hall&password={SECRET}") == "hall"
    text = f"no file 'postgresql://u:{SECRET}@h/db?map=hall', see (postgres://u:{SECRET}@h/db)."
    assert (
        without_secrets(text) == "no file 'postgresql://u@h/db?map=hall', see (postgres://u@h/db)."
    )
    with pytest.raises(ConfigError, match="%40"):
        open_map(f"postgresql://u:x@{SECRET}@h/db?map=hall")


@pytest.mark.slow
def test_all_commands_on_a_server_name_the_map_without_its_password(
    server_uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The server trusts everybody, so any password will do."""
    uri = server_uri.replace("//postgres:@", f"//postgres:{SECRET}@")
    uri = uri if SECRET in uri else f"{uri}&password={SECRET}"
    with make_map(uri) as places:
        places.add_many(keyframe(i) for i in range(4))
    with make_map(tmp_path / "other.map") as places:
        places.add(keyframe(9, source="other"))
    other, copied = str(tmp_path / "other.map"), str(tmp_path / "copied.map")
    for command in itertools.chain(
        [("info", uri), ("info", uri, "--json"), ("check", uri), ("export", uri)],
        [("show", uri, "--output", str(tmp_path / "a.png")), ("merge", other, uri, "--dry-run")],
        [("merge", uri, other), ("prune", uri, "--ids", "1", "--dry-run")],
        [("prune", uri, "--ids", "1"), ("copy", uri, copied)],
    ):
        assert main(["map", *command]) == 0, command
    told = "".join(capsys.readouterr())
    assert SECRET not in told and told.count(shown(uri)) >= 5


@pytest.mark.slow
@pytest.mark.ros
def test_an_argument_that_ros_does_not_read_is_quoted_without_its_password() -> None:
    pytest.importorskip("rclpy")
    node = [sys.executable, "-m", "robot_vision.ros.places.node", "--ros-args", "-p"]
    wrong = f"map:={{postgresql://u:{SECRET}@127.0.0.1:9/db?map=hall"
    run = subprocess.run([*node, wrong], capture_output=True, text=True, timeout=60)
    assert run.returncode == 2 and "error: " in run.stderr
    assert SECRET not in run.stdout + run.stderr


@pytest.mark.parametrize(
    "rest", ["db?map=hall", "db?host=/nowhere&map=hall", "?host=/nowhere&map=hall"]
)
def test_an_address_without_host_is_one_of_a_local_server(rest: str) -> None:
    uri = f"postgresql:///{rest}"
    assert shown(uri) == uri
    assert name_in(uri) == "hall"
    psycopg = pytest.importorskip("psycopg")
    address = pytest.importorskip("robot_vision.places.map.postgres_server").Address.parse(uri)
    parts = psycopg.conninfo.conninfo_to_dict(address.server)
    assert parts.get("host", "/nowhere") == "/nowhere"
    assert parts.get("dbname", "db") == "db"
