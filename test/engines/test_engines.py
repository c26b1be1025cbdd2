"""One suite for all engines: the same bundle gives the same answers, and errors name what is there."""

import importlib.util
import logging
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from forked import said_in_a_fork
from tiny_bundle import make_tiny_bundle

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.bundle.signature import INPUT_NAME
from robot_vision.contract.spec import NetworkSpec
from robot_vision.engines import available_engines, create_engine, factory, nvidia
from robot_vision.engines.bound import BoundSession
from robot_vision.engines.factory import ENGINES
from robot_vision.engines.machine import has_gpu_driver
from robot_vision.errors import BundleError, EngineError
from robot_vision.heads.classifier.spec import ClassifierSpec
from robot_vision.heads.place.spec import PlaceSpec
from robot_vision.heads.pose.spec import PoseSpec
from robot_vision.images.input import InputSpec
from robot_vision.pipeline import Pipeline

# A robot has no torch, and then no torch engine; the other engines are always here.
TORCH = importlib.util.find_spec("torch") is not None
PRESENT = [e for e in ENGINES if e != "torch" or TORCH]
# What runs where: each engine on the CPU, and on an NVIDIA GPU where the machine has one.
PLACES = [(name, "cpu") for name in PRESENT]
if Path("/dev/nvidiactl").exists():
    GPU = {"onnx": ("cuda", "tensorrt"), "torch": ("cuda",)}
    PLACES += [(name, device) for name in PRESENT for device in GPU.get(name, ())]
# ONNX Runtime's engine on a GPU keeps its buffers there; on the CPU the same code has the same answers.
PLACES += [("onnx", "bound cpu")]
SPEC = NetworkSpec(
    "resnet18",
    InputSpec(64, 96),
    heads={
        "classifier": ClassifierSpec(
            ("door", "hall", "stairs"), temperature=1.3, score="energy", tap="layer2"
        ),
        "pose": PoseSpec(hidden=32, tap="layer2"),
        "place": PlaceSpec(clusters=4, whitened_size=16, tap="layer2"),
    },
)


def images(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 64, 96, 3), dtype=np.uint8)


def torch_threads(count=0):
    """Sets torch's threads, which all of the process share; returns how many there were."""
    if not TORCH:
        return 0
    import torch

    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    return before


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A ResNet-18 with random weights and three heads, exported by the exporter."""
    pytest.importorskip("torch", reason="exporting needs the extra train")
    from robot_vision.networks.export import export_bundle
    from robot_vision.networks.network import MultiHeadNetwork

    path = tmp_path_factory.mktemp("engines") / "resnet"
    export_bundle(MultiHeadNetwork(SPEC).eval(), path, "resnet", list(images(3)))
    return ModelBundle.load(path)


def make_engine(bundle, name, place, streams=1):
    device = place.removeprefix("bound ")
    try:
        engine = create_engine(bundle, name, device, streams=streams)
    except EngineError as error:
        # Another build of the engine, or libraries that it needs, are not installed. All else fails.
        absent = r"is not there for engine|has no working|is not installed"
        if re.search(absent, str(error)) and device != "cpu":
            pytest.skip(str(error))
        raise
    if device != place:
        engine._bound = BoundSession(engine._session, INPUT_NAME, list(bundle.spec.outputs), device)
    return engine


@pytest.fixture(scope="module", params=PLACES, ids="-".join)
def engine(request, bundle):
    engine = make_engine(bundle, *request.param)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def reference(bundle):
    """torch in float64: what every engine approximates."""
    import torch

    from robot_vision.networks.checkpoint import load_network

    network = load_network(bundle.path / "weights.safetensors").double()
    with torch.no_grad():
        return {k: v.numpy() for k, v in network(torch.from_numpy(images(5, seed=9))).items()}


def test_outputs_have_the_promised_names_shapes_and_types(engine, bundle):
    outputs = engine.run(images(2))
    assert list(outputs) == list(bundle.spec.outputs)
    for name, promised in bundle.spec.outputs.items():
        assert outputs[name].shape == (2, *promised.shape)
        assert outputs[name].dtype == np.float32


def test_outputs_are_those_of_the_network(engine, reference):
    # NVIDIA's libraries multiply float32 as TF32, of 10 bits, unless they are told not to.
    tolerance = 1e-3 if engine.device == "cpu" else 2e-2
    outputs = engine.run(images(5, seed=9))
    for name, expected in reference.items():
        scale = np.abs(expected).max()
        assert np.abs(outputs[name] - expected).max() <= tolerance * scale, name


def test_values_are_final(engine):
    outputs = engine.run(images(4))
    np.testing.assert_allclose(outputs["probabilities"].sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(outputs["descriptor"], axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(outputs["orientation_xyzw"], axis=1), 1, atol=1e-5)
    assert (outputs["orientation_xyzw"][:, 3] >= 0).all()
    assert (np.linalg.eigvalsh(outputs["pose_covariance"]) > 0).all()


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_batch_answers_as_its_images_one_by_one(engine, count):
    together = engine.run(images(count))
    for i, image in enumerate(images(count)):
        alone = engine.run(image[None])
        for name, value in alone.items():
            if engine.device == "cpu":
                np.testing.assert_allclose(together[name][i], value[0], atol=1e-4, rtol=1e-3)
            else:  # other kernels for other batches, in TF32
                assert np.abs(together[name][i] - value[0]).max() <= 2e-2 * np.abs(value).max()


def test_outputs_stay_valid_after_the_next_run(engine):
    first = engine.run(images(1, seed=1))
    copies = {name: value.copy() for name, value in first.items()}
    engine.run(images(1, seed=2))
    for name, value in first.items():
        np.testing.assert_array_equal(value, copies[name])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "place"), PLACES, ids="-".join)
def test_as_many_threads_as_streams_run_at_the_same_time(bundle, name, place):
    batches = [images(1 + i % 3, seed=i) for i in range(24)]
    alone = create_engine(bundle, name, "cpu")
    expected = [alone.run(batch) for batch in batches]
    threads = torch_threads()
    shared = make_engine(bundle, name, place, streams=3)
    assert (alone.streams, shared.streams) == (1, 3)
    try:
        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(shared.run, batches))
    finally:
        shared.close()
        torch_threads(threads)
    for got, wanted in zip(found, expected, strict=True):
        for output, value in wanted.items():
            np.testing.assert_allclose(got[output], value, atol=1e-4, rtol=1e-3)


@pytest.mark.slow
def test_streams_share_the_threads_that_were_asked_for(bundle):
    openvino = create_engine(bundle, "openvino", "cpu", threads=4, streams=2)
    assert openvino._config["INFERENCE_NUM_THREADS"] == 4  # of all streams
    assert openvino._config["NUM_STREAMS"] == 2
    more = create_engine(bundle, "openvino", "cpu", threads=2, streams=3)
    assert (more._config["NUM_STREAMS"], more.streams) == (2, 3)  # the third request lies ready
    onnx = create_engine(bundle, "onnx", "cpu", threads=4, streams=2)
    # Two threads call, and two of the session's own help them: a pool of three has the caller as one.
    assert onnx._session.get_session_options().intra_op_num_threads == 3
    with pytest.raises(EngineError, match="streams is -1: use 0"):
        create_engine(bundle, "onnx", "cpu", streams=-1)


def test_a_batch_that_cannot_be_run_is_an_error_and_the_next_one_is_answered(engine):
    """On a device the buffers of a failed run are not used again."""
    expected = engine.run(images(2))
    with pytest.raises(EngineError, match="failed on"):
        engine.run(np.ascontiguousarray(images(2)[..., :2]))
    again = engine.run(images(2))
    for name, value in expected.items():
        np.testing.assert_allclose(again[name], value, atol=1e-5, rtol=1e-4)


def test_the_input_is_not_changed(engine):
    batch = images(2)
    before = batch.copy()
    engine.run(batch)
    np.testing.assert_array_equal(batch, before)


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_an_input_that_is_read_only_is_answered_like_any_other(engine):
    batch = images(2)
    expected = engine.run(batch)
    batch.flags.writeable = False
    for name, value in engine.run(batch).items():
        np.testing.assert_array_equal(value, expected[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESENT)
def test_a_model_is_refused_in_a_forked_process_where_its_threads_are_not(bundle, name):
    with Pipeline(bundle, create_engine(bundle, name, threads=2)) as pipeline:
        expected = pipeline(images(3, seed=1)[0])
        pipeline(list(images(3, seed=1)))

        def reload():
            # Each engine once waited for ever in one of these.
            pipeline.close()
            create_engine(bundle, name, threads=2)

        for work in (lambda: pipeline(list(images(3))), lambda: pipeline.warm_up(), reload):
            assert f"forked from {os.getpid()}" in said_in_a_fork(work)
        again = pipeline(images(3, seed=1)[0])
        np.testing.assert_array_equal(again["place"].values, expected["place"].values)


@pytest.mark.slow
def test_closing_twice_is_allowed(bundle):
    for name in PRESENT:
        engine = create_engine(bundle, name, "cpu")
        engine.close()
        engine.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "precision", "tolerance"),
    [("openvino", "bfloat16", 0.05), ("torch", "bfloat16", 0.05)],
)
def test_lower_precision_stays_near(bundle, reference, name, precision, tolerance):
    engine = create_engine(bundle, name, "cpu", precision)
    assert engine.precision == precision
    outputs = engine.run(images(5, seed=9))
    cosine = (outputs["descriptor"] * reference["descriptor"]).sum(axis=1)
    assert (cosine > 1 - tolerance).all()
    assert np.abs(outputs["probabilities"] - reference["probabilities"]).max() < tolerance


@pytest.mark.slow
def test_auto_takes_the_fastest_that_is_there_and_says_which(bundle, caplog):
    with caplog.at_level(logging.INFO, "robot_vision.engines"):
        engine = create_engine(bundle)
    expected = "openvino" if "openvino" in available_engines() else "onnx"
    if not any(d != "cpu" for devices in available_engines().values() for d in devices):
        assert (engine.name, engine.device) == (expected, "cpu")
    assert f"engine {engine.name} on {engine.device}, float32" in caplog.text
    engine.close()


def test_available_engines_lists_devices_of_each():
    found = available_engines()
    assert "onnx" in found and "cpu" in found["onnx"]
    assert set(found) <= set(ENGINES)


@pytest.mark.slow
def test_devices_of_torch_are_those_that_it_has_and_are_listed_without_its_import():
    torch = pytest.importorskip("torch")
    gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    code = (
        "import sys; from robot_vision.engines import available_engines\n"
        "print(available_engines()['torch'], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # Where there is a driver, torch alone says whether it can use it.
    assert done.stdout.strip() == f"{[*gpus, 'cpu']} {has_gpu_driver()}"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("onx",), "did you mean 'onnx'"),
        (("onnx", "gpu9"), "there are onnx: cpu"),
        (("auto", "tpu"), "openvino: cpu"),
        (("onnx", "cuda:x"), "'cuda:x' is not there"),
        (("onnx", "cpu", "float8"), "use one of float32"),
        (("onnx", "cpu", "float16"), "does not compute in float16"),
        (("onnx", "cpu", "float32", -1), "threads is -1"),
    ],
)
def test_what_is_not_there_is_an_error_that_lists_what_is(tmp_path, arguments, words):
    tiny = ModelBundle.load(make_tiny_bundle(tmp_path))
    with pytest.raises(EngineError, match=words) as caught:
        create_engine(tiny, *arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("driver", "words"),
    [
        (False, "no NVIDIA driver"),
        # Both: of two builds whose files are the same, pip would take one for still installed.
        (True, r"uninstall onnxruntime onnxruntime-gpu, .* 'onnxruntime-gpu\[cuda,cudnn\]'"),
    ],
)
def test_a_gpu_that_is_not_there_is_an_error_that_says_why(tmp_path, monkeypatch, driver, words):
    if "cuda" in available_engines()["onnx"]:
        pytest.skip("this machine has a GPU")
    monkeypatch.setattr(nvidia, "has_driver", lambda: driver)
    tiny = ModelBundle.load(make_tiny_bundle(tmp_path))
    with pytest.raises(EngineError, match=words):
        create_engine(tiny, "onnx", "cuda")


def test_a_device_that_fails_is_never_replaced_while_it_runs(tmp_path):
    """ONNX Runtime's sessions go on with another device if they are not told otherwise."""
    engine = create_engine(ModelBundle.load(make_tiny_bundle(tmp_path)), "onnx", "cpu")
    assert engine._session._enable_fallback is False


def test_tensorrt_is_told_the_batches_and_keeps_engines_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tiny = ModelBundle.load(make_tiny_bundle(tmp_path / "tiny"))
    shape = f"{tiny.spec.input.height}x{tiny.spec.input.width}x3"
    folders = []
    for bundle, precision, batch in (
        (tiny, "float32", 1),
        (tiny, "float32", 4),
        (tiny, "float16", 4),
        (replace(tiny, sha256="0" * 64), "float16", 4),  # new weights in the old folder
    ):
        (_, options), cuda, cpu = nvidia.providers("tensorrt", 1, precision, bundle, batch)
        assert (cuda[1], cpu) == ({"device_id": 1}, "CPUExecutionProvider")
        assert options["trt_profile_min_shapes"] == f"images:1x{shape}"
        assert options["trt_profile_max_shapes"] == f"images:{batch}x{shape}"
        assert options["trt_fp16_enable"] == (precision == "float16")
        assert not options["trt_int8_enable"] and "trt_bf16_enable" not in options
        folders.append(Path(options["trt_engine_cache_path"]))
    assert len(set(folders)) == 4 and all(folder.is_dir() for folder in folders)
    assert all(tmp_path / "cache" in folder.parents for folder in folders)
    options = nvidia.providers("tensorrt", 0, "bfloat16", tiny, 2)
    (name, fewer), *rest = nvidia.without_profiles(options)
    assert name == "TensorrtExecutionProvider" and rest == options[1:]
    assert fewer.keys() == {k for k in options[0][1] if "profile" not in k}
    assert fewer["trt_bf16_enable"] and "trt_engine_cache_path" in fewer
    quantised = replace(tiny, training={"variant": nvidia.TENSORRT_VARIANT})
    assert nvidia.providers("tensorrt", 0, "float32", quantised, 1)[0][1]["trt_int8_enable"]


def test_a_gpu_that_fails_at_its_first_run_is_freed_before_the_next(tmp_path, monkeypatch):
    alive = []

    class Device:
        name, precision = "onnx", "float32"

        def __init__(self, _bundle, settings):
            assert not alive  # or the memory of two would be taken
            self.device = settings.device
            alive.append(self.device)

        def run(self, _batch):
            raise EngineError("no kernel for this GPU")

        def close(self):
            alive.remove(self.device)

    places = [("onnx", "tensorrt"), ("onnx", "cuda"), ("onnx", "cpu")]
    monkeypatch.setattr(factory, "places", lambda *_: places)
    monkeypatch.setattr(factory, "_has_precision", lambda *_: True)
    monkeypatch.setattr(factory, "_module", lambda _: SimpleNamespace(OnnxEngine=Device))
    assert create_engine(ModelBundle.load(make_tiny_bundle(tmp_path))).device == "cpu"
    assert alive == ["cpu"]


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "tensorrt"])
def test_a_gpu_that_is_not_there_is_never_replaced_by_the_cpu(tmp_path, device):
    tiny = ModelBundle.load(make_tiny_bundle(tmp_path))
    if any(d != "cpu" for devices in available_engines().values() for d in devices):
        pytest.skip("this machine has a GPU")
    with pytest.raises(EngineError, match="cpu"):
        create_engine(tiny, "auto", device)


@pytest.mark.skipif(not TORCH, reason="torch is not installed")
def test_torch_says_that_a_bundle_has_no_weights(tmp_path):
    tiny = ModelBundle.load(make_tiny_bundle(tmp_path))
    with pytest.raises(EngineError, match=r"no weights\.safetensors"):
        create_engine(tiny, "torch")


@pytest.mark.slow
def test_weights_that_were_altered_are_refused(bundle, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(bundle.path, copy)
    weights = bytearray((copy / "weights.safetensors").read_bytes())
    weights[-5] ^= 1
    (copy / "weights.safetensors").write_bytes(weights)
    with pytest.raises(BundleError, match="altered"):
        ModelBundle.load(copy)


@pytest.mark.slow
def test_a_signal_after_two_engines_of_openvino_is_no_crash(tmp_path):
    code = (
        "import os, signal\n"
        "from robot_vision.bundle.bundle import ModelBundle\n"
        "from robot_vision.engines import create_engine\n"
        f"bundle = ModelBundle.load({str(make_tiny_bundle(tmp_path / 'tiny'))!r})\n"
        "first, second = (create_engine(bundle, 'openvino') for _ in range(2))\n"
        "first.close()\nsecond.close()\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT)\n    signal.pause()\n"
        "except KeyboardInterrupt:\n    print('interrupted')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "interrupted\n")
