"""What conftest.py skips for want of a package, and what it may not hide."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_missing_package_skips_and_a_missing_part_of_one_fails(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").touch()
    (tmp_path / "test_part.py").write_text("import torch.not_there\n")
    (tmp_path / "test_whole.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'onnx'\")\n"
    )
    path = os.pathsep.join(map(str, (tmp_path, ROOT, ROOT / "test")))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "conftest", "-rs", "--rootdir", tmp_path, tmp_path],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "No module named 'torch.not_there'" in done.stdout, done.stdout + done.stderr
    assert "1 skipped, 1 error" in done.stdout and "onnx is not installed" in done.stdout
