"""SALAD, BoQ, MixVPR and CosPlace: their papers' equations in NumPy, their graphs, and what they learn."""

import numpy as np
import onnxruntime
import pytest
import torch
from loss_oracles import make_loss
from network_helpers import Samples

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.contract import registry
from robot_vision.contract.spec import NetworkSpec
from robot_vision.engines import create_engine
from robot_vision.errors import ConfigError
from robot_vision.heads.place.spec import POOLINGS, PlaceSpec
from robot_vision.images.input import InputSpec
from robot_vision.networks.checkpoint import load_network, save_network
from robot_vision.networks.export import export_bundle, export_graph
from robot_vision.networks.network import MultiHeadNetwork
from robot_vision.training.config import TrainingConfig
from robot_vision.training.ship.quantise import make_variant

SHAPE = (6, 4, 5)  # of the map: 20 features of 6 channels
SETTINGS = {
    "salad": {"clusters": 3, "channels": 4, "token_size": 5, "hidden": 7},
    "boq": {"clusters": 4, "channels": 8, "rows": 3, "depth": 2},
    "mixvpr": {"channels": 5, "rows": 3, "depth": 2},
    "cosplace": {"channels": 4},
}
SIZES = {"salad": 5 + 3 * 4, "boq": 8 * 3, "mixvpr": 5 * 3, "cosplace": 4}


def make(pooling, shape=SHAPE, **settings):
    spec = PlaceSpec(pooling=pooling, **{**SETTINGS[pooling], **settings})
    shapes = [shape, (9,)] if pooling == "salad" else [shape]
    return registry.head("place").trainer().module(spec, shapes).double().eval()


def inputs(pooling, n=3):
    features = torch.randn(n, *SHAPE, dtype=torch.float64)
    token = torch.randn(n, 9, dtype=torch.float64)
    return (features, token) if pooling == "salad" else (features,)


def unit(x, axis=-1):
    return x / np.sqrt((x**2).sum(axis=axis, keepdims=True))


def relu(x):
    return np.maximum(x, 0)


def linear(x, w, name):
    """x (..., in) through a linear layer, or a convolution of 1 x 1."""
    weight = w[f"{name}.weight"]
    return x @ weight.reshape(weight.shape[0], -1).T + w[f"{name}.bias"]


def normed(x, w, name):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def salad(w, features, token):
    """One image; the transport is solved by scaling rows and columns of exp(scores), not by logarithms."""
    x = features.reshape(len(features), -1).T  # (n, C)
    scores = linear(relu(linear(x, w, "score.0")), w, "score.3")  # (n, m)
    reduced = linear(relu(linear(x, w, "reduce.0")), w, "reduce.3")  # (n, l)
    n, m = scores.shape
    transport = np.exp(np.concatenate([scores, np.full((n, 1), w["dustbin"])], axis=1))  # (n, m+1)
    mass = np.r_[np.ones(m), n - m]
    for _ in range(3):
        transport = transport / transport.sum(axis=0) * mass
        transport = transport / transport.sum(axis=1, keepdims=True)
    clusters = [unit(sum(transport[i, j] * reduced[i] for i in range(n))) for j in range(m)]
    g = unit(linear(relu(linear(token, w, "token.0")), w, "token.2"))
    # The order of the authors' code: all clusters' first numbers, then all second ones.
    return unit(np.r_[g, np.stack(clusters, axis=1).ravel()])


def attention(q, x, w, name):
    """Multi-head attention of q (a, c) over x (b, c); heads of 64 channels, here one."""
    wq, wk, wv = np.split(w[f"{name}.in_proj_weight"], 3)
    bq, bk, bv = np.split(w[f"{name}.in_proj_bias"], 3)
    q, k, v = q @ wq.T + bq, x @ wk.T + bk, x @ wv.T + bv
    return linear(softmax(q @ k.T / np.sqrt(q.shape[1])) @ v, w, f"{name}.out_proj")


def convolved(features, weight, bias):
    c, h, wide = features.shape
    padded = np.zeros((c, h + 2, wide + 2))
    padded[:, 1:-1, 1:-1] = features
    out = np.zeros((h, wide, len(weight)))
    for i in range(h):
        for j in range(wide):
            out[i, j] = (weight * padded[None, :, i : i + 3, j : j + 3]).sum((1, 2, 3)) + bias
    return out.reshape(h * wide, -1)


def boq(w, features):
    x = normed(convolved(features, w["reduce.weight"], w["reduce.bias"]), w, "norm")  # (n, c)
    found = []
    for i in range(2):
        b = f"blocks.{i}."
        x = normed(x + attention(x, x, w, f"{b}encoder.self_attn"), w, f"{b}encoder.norm1")
        inner = linear(relu(linear(x, w, f"{b}encoder.linear1")), w, f"{b}encoder.linear2")
        x = normed(x + inner, w, f"{b}encoder.norm2")
        q = w[f"{b}queries"][0]
        q = normed(q + attention(q, q, w, f"{b}self_attention"), w, f"{b}norm_queries")
        found.append(normed(attention(q, x, w, f"{b}cross_attention"), w, f"{b}norm_out"))
    return unit(linear(np.concatenate(found).T, w, "over_queries").ravel())


def mixvpr(w, features):
    x = features.reshape(len(features), -1)  # (C, n)
    for i in range(2):
        inner = relu(linear(normed(x, w, f"mixers.{i}.norm"), w, f"mixers.{i}.first"))
        x = x + linear(inner, w, f"mixers.{i}.second")
    x = linear(x.T, w, "over_channels").T  # (d, n)
    return unit(linear(x, w, "over_rows").ravel())


def cosplace(w, features):
    x = unit(features, axis=0).reshape(len(features), -1)
    p = w["power"]
    means = [np.mean([max(v, 1e-6) ** p for v in row]) ** (1 / p) for row in x]
    return unit(linear(np.array(means), w, "linear"))


PAPERS = {"salad": salad, "boq": boq, "mixvpr": mixvpr, "cosplace": cosplace}


@pytest.mark.parametrize("pooling", PAPERS)
def test_descriptor_is_the_papers_equations(pooling):
    head = make(pooling)
    for (
        name,
        parameter,
    ) in head.named_parameters():  # what begins as zeros or ones would hide mistakes
        parameter.data += 0.2 * torch.randn_like(parameter)
        if name == "power":
            parameter.data.fill_(2.6)
    taps = inputs(pooling)
    weights = {name: value.detach().numpy() for name, value in head.state_dict().items()}
    ours = head(*taps)["descriptor"].detach().numpy()
    expected = [
        PAPERS[pooling](weights, *(t.numpy() for t in one)) for one in zip(*taps, strict=True)
    ]
    assert ours.shape == (3, SIZES[pooling]) and head.size == SIZES[pooling]
    np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-12)


def test_every_pooling_is_tried():
    assert {*PAPERS, "netvlad", "gem"} == set(POOLINGS)


@pytest.mark.slow
@pytest.mark.parametrize("pooling", PAPERS)
def test_gradient_is_that_of_finite_differences(pooling):
    head, taps = make(pooling), [t.requires_grad_() for t in inputs(pooling, 1)]
    if pooling == "cosplace":  # away from the floor, where max(x, 1e-6) has a kink
        taps = [t.detach().abs().add(0.1).requires_grad_() for t in taps]
    assert torch.autograd.gradcheck(lambda *t: head(*t)["descriptor"], tuple(taps))


def test_transport_gives_each_feature_to_one_place_and_each_cluster_its_share():
    scores = torch.randn(2, 3, 20, dtype=torch.float64)
    assigned = make("salad").transport(scores)
    assert (assigned > 0).all() and (assigned.sum(1) < 1).all()  # the rest is in the dustbin
    # After three rounds the columns are exact and the rows nearly so.
    torch.testing.assert_close(assigned.sum(2), torch.ones(2, 3).double(), atol=0.05, rtol=0)


def test_dustbin_with_a_high_score_takes_what_is_nobodys():
    head = make("salad")
    scores = torch.zeros(1, 3, 20, dtype=torch.float64)
    scores[0, :, 0] = 5.0
    head.dustbin.data.fill_(3.0)
    share = head.transport(scores)[0].sum(0)
    assert share[0] > 0.9 and share[1:].max() < 0.2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pooling": "gem", "rows": 4}, "rows is 4, but pooling is gem: it has no such settings"),
        ({"pooling": "salad", "depth": 2}, "its settings are channels, token_size, hidden"),
        ({"pooling": "boq", "rows": -1}, "rows is -1: it must be 0 to 4096"),
        ({"pooling": "mixpvr"}, "did you mean 'mixvpr'"),
    ],
)
def test_settings_that_a_pooling_does_not_have_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        PlaceSpec(**settings)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_bundle_says_the_settings_that_are_set_and_no_other_poolings(pooling):
    head = registry.head("place")
    spec = PlaceSpec(pooling=pooling, **SETTINGS.get(pooling, {}))
    said, files = head.to_bundle(spec)
    always = {"tap", "clusters", "whitened_size", "descriptor_size", "pooling"}
    assert set(said) == always | set(POOLINGS[pooling])
    assert PlaceSpec(**head.from_bundle(said, files)) == spec


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="has 20, clusters is 20; use fewer clusters"):
        make("salad", clusters=20)
    with pytest.raises(ConfigError, match="channels is 200: with boq it must be a multiple of 64"):
        make("boq", channels=200)
    with pytest.raises(ConfigError, match="at most the 15 numbers that mixvpr gives"):
        make("mixvpr", whitened_size=16)
    with pytest.raises(ConfigError, match="needs a feature map"):
        make("mixvpr", shape=(9,))


@pytest.mark.parametrize(
    ("pooling", "numbers"), [("salad", 8448), ("boq", 16384), ("mixvpr", 4096), ("cosplace", 512)]
)
def test_defaults_are_the_papers_sizes(pooling, numbers):
    with torch.device("meta"):
        shapes = [(1024, 20, 20), (768,)][: 2 if pooling == "salad" else 1]
        spec = PlaceSpec(pooling=pooling)
        assert registry.head("place").trainer().module(spec, shapes).size == numbers


@pytest.mark.slow
@pytest.mark.parametrize("pooling", PAPERS)
def test_graph_and_checkpoint_compute_what_torch_does_for_any_batch(pooling, tmp_path):
    place = PlaceSpec(tap="stage2", pooling=pooling, **SETTINGS[pooling], whitened_size=4)
    spec = NetworkSpec("shufflenet_v2_x0_5", InputSpec(height=64, width=64), {"place": place})
    network = MultiHeadNetwork(spec).eval()
    save_network(network, tmp_path / "network.safetensors")
    again = load_network(tmp_path / "network.safetensors")
    images = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8)
    session = onnxruntime.InferenceSession(export_graph(network, images))
    for count in (1, 2, 5):
        (graph,) = session.run(["descriptor"], {session.get_inputs()[0].name: images[:count]})
        assert graph.shape == (count, 4)
        with torch.no_grad():
            for one in (network, again):
                wanted = one(torch.from_numpy(images[:count]))["descriptor"]
                np.testing.assert_allclose(graph, wanted, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("pooling", PAPERS)
def test_variants_give_nearly_the_same_descriptors(pooling, tmp_path):
    place = PlaceSpec(tap="stage2", pooling=pooling, **SETTINGS[pooling])
    spec = NetworkSpec("shufflenet_v2_x0_5", InputSpec(height=64, width=64), {"place": place})
    images = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), np.uint8)
    bundle = tmp_path / "float32"
    export_bundle(MultiHeadNetwork(spec).eval(), bundle, "shufflenet", list(images))
    config = TrainingConfig(heads=("place",))
    expected = create_engine(ModelBundle.load(bundle), "onnx", "cpu", threads=1).run(images)
    for kind, least in (("int8", 0.995), ("int8-vnni", 0.98), ("float16", 0.99999)):
        path = make_variant(bundle, tmp_path / kind, kind, Samples(images), config)
        found = create_engine(ModelBundle.load(path), "onnx", "cpu", threads=1).run(images)
        # In float16 the last division leaves lengths that are 0.0005 off.
        alike = (unit(found["descriptor"]) * unit(expected["descriptor"])).sum(axis=1)
        assert alike.min() > least, kind


@pytest.mark.slow
@pytest.mark.parametrize("pooling", PAPERS)
def test_head_learns_to_tell_places_apart(pooling):
    head = make(pooling).float().train()
    place = torch.arange(12) % 3
    # Each place has its own channels, under noise as large at every position.
    own = torch.randn(3, 9)[place]
    noise = [torch.randn(12, *t.shape[1:]) for t in inputs(pooling)]
    taps = [x + own[(..., *[None] * (x.dim() - 2))][:, : x.shape[1]] for x in noise]
    batch = {"place": place, "index": torch.arange(12)}
    loss = make_loss("place", "multi_similarity")
    optimiser = torch.optim.Adam(head.parameters(), lr=1e-2)
    before = float(loss(head(*taps), batch).total.detach())
    for _ in range(100):
        optimiser.zero_grad()
        loss(head(*taps), batch).total.backward()
        optimiser.step()
    with torch.no_grad():
        x = head.eval()(*taps)["descriptor"]
        after = float(loss({"descriptor": x}, batch).total)
    nearest = (x @ x.T).fill_diagonal_(-2).argmax(1)
    assert after < 0.7 * before and (place[nearest] == place).all()
