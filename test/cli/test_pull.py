"""`robot-vision pull` from a hub on this machine: the real client over HTTP, and no other network."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tiny_bundle import make_tiny_bundle

from robot_vision.bundle.bundle import ModelBundle

pytest.importorskip("huggingface_hub")

pytestmark = pytest.mark.slow
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Serves folders as repositories, as the hub's API does."""

    def __init__(self, folders: dict[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folders = folders
        self.asked: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        path = self.path.partition("?")[0].strip("/")
        for name, folder in self.server.folders.items():
            files = sorted(
                p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()
            )
            if path in (f"api/models/{name}", f"api/models/{name}/revision/main"):
                about = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": f} for f in files]}
                self._answer(200, json.dumps(about).encode(), Content_Type="application/json")
                return
            if path.startswith(f"api/models/{name}/tree/"):
                tree = [
                    {
                        "type": "file",
                        "path": f,
                        "size": (folder / f).stat().st_size,
                        "oid": "0" * 40,
                    }
                    for f in files
                ]
                self._answer(200, json.dumps(tree).encode(), Content_Type="application/json")
                return
            file = path.removeprefix(f"{name}/resolve/{COMMIT}/")
            if file in files:
                body = (folder / file).read_bytes()
                tag = hashlib.sha256(body).hexdigest()
                self._answer(200, body, ETag=f'"{tag}"', X_Repo_Commit=COMMIT)
                return
        self._answer(404, b"{}", X_Error_Code="RepoNotFound")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    bundle = make_tiny_bundle(tmp_path / "hub" / "tiny")
    (bundle / "notes.pdf").write_bytes(b"not of a bundle")
    altered = make_tiny_bundle(tmp_path / "hub" / "altered")
    with (altered / "model.onnx").open("ab") as file:
        file.write(b"\0")
    other = tmp_path / "hub" / "other"
    other.mkdir()
    (other / "README.md").write_text("no bundle\n")
    server = Hub({"user/tiny": bundle, "user/altered": altered, "user/other": other})
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def pull(hub: Hub, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    port = hub.server_address[1]
    environment = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{port}",
        "HF_HOME": str(folder / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "127.0.0.1",
    }
    return subprocess.run(
        [sys.executable, "-m", "robot_vision.cli", "pull", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_bundle_comes_whole_and_verified(hub: Hub, tmp_path: Path) -> None:
    done = pull(hub, tmp_path, "user/tiny")
    assert done.returncode == 0, done.stderr
    found = ModelBundle.load(tmp_path / "models" / "tiny")
    assert found.sha256 == ModelBundle.load(hub.folders["user/tiny"]).sha256
    assert found.sha256[:12] in done.stdout and "models/tiny" in done.stdout
    assert sorted(p.name for p in found.path.iterdir()) == sorted(
        {p.name for p in hub.folders["user/tiny"].iterdir()} - {"notes.pdf"}
    )
    again = pull(hub, tmp_path, "user/tiny")
    assert again.returncode == 2 and "exists already" in again.stderr
    assert pull(hub, tmp_path, "user/tiny", "--force").returncode == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("user/altered", "was altered or cut off"),
        ("user/other", "has no bundle.yaml"),
        ("user/absent", "user/absent (main)"),
    ],
)
def test_what_is_no_whole_bundle_is_refused_and_leaves_nothing(
    hub: Hub, tmp_path: Path, name: str, said: str
) -> None:
    done = pull(hub, tmp_path, name, "--output", "models/new")
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2 and said in lines[-1], done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "models").iterdir())


def test_a_hub_that_does_not_answer_is_one_line(hub: Hub, tmp_path: Path) -> None:
    hub.shutdown()
    hub.server_close()
    done = pull(hub, tmp_path, "user/tiny")
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert (
        last.startswith("robot-vision pull: user/tiny (main): ") and "internet connection" in last
    )
