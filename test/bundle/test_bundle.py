"""Bundles: loading verifies everything, and says in one line what is wrong."""

import json
import pickle
import re
import subprocess
import sys

import onnx
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_bundle import make_tiny_bundle

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.cli import main
from robot_vision.datasets.image_sketch import sketch
from robot_vision.errors import BundleError, EngineError
from robot_vision.files.whole import file_sha256


@pytest.fixture
def bundle(tmp_path):
    return make_tiny_bundle(tmp_path / "tiny")


def rewrite(bundle, change):
    """Applies `change` to the manifest's data, as a person with an editor would."""
    file = bundle / "bundle.yaml"
    data = yaml.safe_load(file.read_text())
    change(data)
    file.write_text(yaml.safe_dump(data))


def rehash(bundle):
    """Makes the manifest's hashes those of the files as they are."""
    rewrite(bundle, lambda d: d["files"].update({n: file_sha256(bundle / n) for n in d["files"]}))


def test_load_returns_what_was_written(bundle):
    loaded = ModelBundle.load(bundle)
    assert loaded.name == "tiny"
    assert loaded.spec.heads["classifier"].labels == ("red", "green", "blue")
    assert tuple(loaded.spec.heads) == ("classifier", "pose", "place")
    assert loaded.graph == (bundle / "model.onnx").read_bytes()
    assert loaded.sha256 == file_sha256(bundle / "bundle.yaml")


def test_info_cuts_the_sketch_of_images_and_keeps_what_is_next_to_it(bundle, capsys):
    of_images = sketch(f"{i:012x}" for i in range(100))
    record = {"notes": ["left out: lab [/2]/a.png"], "training_image_sketch": of_images}
    nested = {"data": {"kind": "image_folder", "image_sketch": of_images}}
    rewrite(bundle, lambda d: d.update(training=record, calibration=nested))
    assert main(["info", str(bundle)]) == 0
    said = " ".join(re.findall(r"[^\s│]+", capsys.readouterr().out))
    for text in ("{'images': 100, 'smallest': '0000", "'image_folder'", "lab [/2]/a.png"):
        assert text in said
    assert said.count("... (1299 characters)") == 2 and "000000000063" not in said
    assert main(["info", str(bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bundle"]["training"] == record


@pytest.mark.parametrize("name", ["model.onnx", "labels.txt", "README.md"])
@pytest.mark.parametrize("damage", ["remove", "truncate", "flip", "empty"])
def test_load_names_the_damaged_file(bundle, name, damage):
    file = bundle / name
    content = bytearray(file.read_bytes())
    if damage == "remove":
        file.unlink()
    elif damage == "truncate":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    else:
        file.write_bytes(b"")
    with pytest.raises(BundleError, match=name) as caught:
        ModelBundle.load(bundle)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.update(format_version=2), "reads 1"),
        (lambda d: d.update(format_version="1"), "reads 1"),
        (lambda d: d.pop("format_version"), "reads 1"),
        (lambda d: d.pop("files"), "lacks files"),
        (lambda d: d.update(name="../evil"), "name is"),
        (lambda d: d.update(extra=1), "Unknown key"),
        (lambda d: d["files"].update({"../../etc/passwd": "0"}), "Unknown key of files"),
        (lambda d: d["files"].pop("model.onnx"), "lacks model.onnx"),
        (lambda d: d["network"]["heads"].update(depth={}), "'depth'"),
        (lambda d: d["network"]["heads"].pop("classifier"), "no classifier head"),
        (lambda d: d["network"]["heads"].pop("pose"), "not in the bundle's heads"),
        (lambda d: d["network"]["input"].update(height=64), "should be"),
        (lambda d: d["network"]["heads"]["place"].update(descriptor_size=9), "descriptor"),
    ],
)
def test_load_names_the_contradiction_in_the_manifest(bundle, change, words):
    rewrite(bundle, change)
    with pytest.raises(BundleError, match=words) as caught:
        ModelBundle.load(bundle)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("labels", ["red\ngreen\n", "red\ngreen\nblue\npink\n"])
def test_load_refuses_a_label_count_that_the_graph_does_not_have(bundle, labels):
    (bundle / "labels.txt").write_text(labels)
    rehash(bundle)
    with pytest.raises(BundleError, match="probabilities"):
        ModelBundle.load(bundle)


def test_load_refuses_a_graph_with_external_data(bundle):
    model = onnx.load(bundle / "model.onnx")
    onnx.external_data_helper.convert_model_to_external_data(
        model, location="weights.bin", size_threshold=0
    )
    onnx.save(model, bundle / "model.onnx")
    (bundle / "weights.bin").rename(bundle / "weights.data")
    rehash(bundle)
    with pytest.raises(BundleError, match=r"model\.onnx"):
        ModelBundle.load(bundle)


def test_load_refuses_a_pickle_beside_the_files(bundle):
    (bundle / "weights.pth").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(BundleError, match="pickle"):
        ModelBundle.load(bundle)


def test_load_refuses_a_link_out_of_the_bundle(bundle, tmp_path):
    (bundle / "model.onnx").rename(tmp_path / "elsewhere.onnx")
    (bundle / "model.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(BundleError, match=r"model\.onnx"):
        ModelBundle.load(bundle)


def test_load_follows_a_folder_of_links_as_colcon_makes_it(bundle, tmp_path):
    (tmp_path / "install").mkdir()
    for file in bundle.iterdir():
        (tmp_path / "install" / file.name).symlink_to(file)
    assert ModelBundle.load(tmp_path / "install").graph == ModelBundle.load(bundle).graph
    (bundle / "bundle.yaml").rename(tmp_path / "blob")  # as a hub's cache has it
    with pytest.raises(BundleError):
        ModelBundle.load(tmp_path / "install")
    (tmp_path / "install/bundle.yaml").unlink()
    (tmp_path / "install/bundle.yaml").symlink_to(tmp_path / "blob")
    with pytest.raises(BundleError, match="is a link.*cp -rL"):
        ModelBundle.load(tmp_path / "install")


def test_load_runs_no_code_from_yaml(bundle, tmp_path):
    evil = f"!!python/object/apply:os.system ['touch {tmp_path}/owned']"
    (bundle / "bundle.yaml").write_text(f"format_version: {evil}\n")
    with pytest.raises(BundleError, match="YAML"):
        ModelBundle.load(bundle)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("what", ["nothing", "file", "folder"])
def test_load_says_what_a_bundle_is_when_there_is_none(tmp_path, what):
    path = tmp_path / "x"
    if what == "file":
        path.write_text("hello")
    elif what == "folder":
        path.mkdir()
        (path / "model.pt").write_text("hello")
    with pytest.raises(BundleError, match=r"bundle\.yaml"):
        ModelBundle.load(path)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_load_never_raises_anything_else_for_a_corrupted_manifest(bundle, data):
    original = (bundle / "bundle.yaml").read_bytes()
    broken = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(broken) - 1))
        broken[position : position + data.draw(st.integers(0, 9))] = data.draw(
            st.binary(max_size=6)
        )
    (bundle / "bundle.yaml").write_bytes(broken)
    try:
        ModelBundle.load(bundle)
    except BundleError as error:
        assert "\n" not in str(error)
    finally:
        (bundle / "bundle.yaml").write_bytes(original)


def test_load_names_the_python_that_lacks_onnx_runtime(bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineError, match=f"onnxruntime is not installed for {sys.executable}"):
        ModelBundle.load(bundle)


@pytest.mark.slow
def test_the_runtime_imports_neither_torch_nor_ros(bundle):
    code = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'torchvision', 'rclpy', 'scipy', 'onnx'):\n"
        "            raise ImportError(f'{name} is blocked')\n"
        "sys.meta_path.insert(0, Block())\n"
        "import numpy as np\n"
        "import robot_vision.errors, robot_vision.geometry.rigid, robot_vision.images.decode\n"
        "import robot_vision.contract.prediction, robot_vision.recordings, robot_vision.cli.infer\n"
        "from robot_vision.pipeline import Pipeline\n"
        f"pipeline = Pipeline.load({str(bundle)!r}, engine='onnx', device='cpu')\n"
        "result = pipeline([np.zeros((480, 640, 3), np.uint8)])[0]\n"
        "print(result['classifier'].top_k(1)[0].label, result['place'].values.shape)\n"
        "bad = [m for m in sys.modules if m.split('.')[0] in ('torch', 'rclpy')]\n"
        "assert not bad, bad\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "(8,)"
