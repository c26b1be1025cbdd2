"""The code of docs/how-to runs as it is written."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_datasets import write_image

HOW_TO = Path(__file__).resolve().parents[2] / "docs" / "how-to"


def blocks(name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (HOW_TO / name).read_text(), re.DOTALL)


@pytest.mark.parametrize("name", sorted(p.name for p in HOW_TO.glob("*.md")))
def test_each_is_short(name: str) -> None:
    assert len((HOW_TO / name).read_text().splitlines()) < 150


def test_a_backbone_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from robot_vision.backbones import architectures

    monkeypatch.setattr(architectures, "OWN", dict(architectures.OWN))
    exec("\n".join(blocks("add-a-backbone.md")), {"__name__": "how_to"})


def test_a_dataset_format_is_added(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from robot_vision.datasets import formats, open_dataset, registry

    module, line = blocks("add-a-dataset-format.md")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "named_poses.py").write_text(module)
    monkeypatch.setattr(formats, "__path__", [*formats.__path__, str(tmp_path / "code")])
    monkeypatch.setattr(registry, "DATASETS", dict(registry.DATASETS))
    exec(line, {"__name__": "how_to"})
    room = tmp_path / "room"
    room.mkdir()
    for i in range(8):
        write_image(room / f"{i}.jpg", i)
    (room / "poses.txt").write_text("".join(f"{i} {i} 0 1.5707963\n" for i in range(9)))
    splits = open_dataset("named_poses", room, camera_height_m=0.5, block_frames=2, validation=0)
    sys.modules.pop("robot_vision.datasets.formats.named_poses")
    assert len(splits.samples) == 8 and any("8" in note for note in splits.notes)
    T_map_camera = splits.samples[0].T_map_camera
    np.testing.assert_allclose(
        T_map_camera[:3, 2], (0, 1, 0), atol=1e-6
    )  # yaw of 90 degrees: ahead is +y
    np.testing.assert_allclose(T_map_camera[:3, 1], (0, 0, -1), atol=1e-6)
    assert np.linalg.det(T_map_camera[:3, :3]) == pytest.approx(1)
