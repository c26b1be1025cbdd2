"""GeM pooling and the full covariance of the pose head, with the graphs that they are exported to."""

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch

from robot_vision.contract.spec import NetworkSpec
from robot_vision.errors import ConfigError
from robot_vision.heads.place.poolings.gem import GemHead
from robot_vision.heads.place.poolings.netvlad import NetVladHead
from robot_vision.heads.place.spec import PlaceSpec
from robot_vision.heads.pose.covariance_layer import below_diagonal, correlation_factor
from robot_vision.heads.pose.network import PoseNetHead
from robot_vision.heads.pose.spec import PoseSpec
from robot_vision.images.input import InputSpec
from robot_vision.networks.export import export_graph
from robot_vision.networks.network import MultiHeadNetwork

SHAPE = (6, 4, 5)
SPEC = NetworkSpec(
    backbone="resnet18",
    input=InputSpec(height=64, width=64),
    heads={
        "pose": PoseSpec(hidden=16, covariance="cholesky"),
        "place": PlaceSpec(pooling="gem", whitened_size=32),
    },
)


def paper(features, p):
    """Radenovic et al., eq. 3, for one image (C, H, W)."""
    f = np.zeros(len(features))
    for c, channel in enumerate(features):
        f[c] = sum(max(x, 0.0) ** p for x in channel.ravel()) / channel.size
    f = f ** (1 / p)
    return f / np.sqrt((f**2).sum())


@pytest.mark.parametrize("p", [1.0, 3.0, 6.5])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_descriptor_is_the_papers_formula_at_any_scale(p, scale):
    head = GemHead(PlaceSpec(pooling="gem"), SHAPE).double()
    head.power.data.fill_(p)
    features = scale * torch.rand(3, *SHAPE, dtype=torch.float64)
    ours = head(features)["descriptor"].detach().numpy()
    np.testing.assert_allclose(ours, [paper(f.numpy(), p) for f in features], rtol=1e-9)


def test_p_of_one_is_average_pooling_and_a_large_p_nearly_max_pooling():
    features = torch.rand(2, *SHAPE)
    head = GemHead(PlaceSpec(pooling="gem"), SHAPE)
    head.power.data.fill_(1.0)
    mean = torch.nn.functional.normalize(features.mean(dim=(2, 3)), dim=1)
    torch.testing.assert_close(head(features)["descriptor"], mean)
    head.power.data.fill_(20.0)
    highest = torch.nn.functional.normalize(features.amax(dim=(2, 3)), dim=1)
    torch.testing.assert_close(head(features)["descriptor"], highest, atol=0.05, rtol=0)


def test_gradients_reach_features_and_power():
    head = GemHead(PlaceSpec(pooling="gem", whitened_size=4), SHAPE).double()

    def descriptor(features, power):
        return torch.func.functional_call(head, {"power": power}, features)["descriptor"]

    features = torch.rand(2, *SHAPE, dtype=torch.float64).add(0.1).requires_grad_()
    power = torch.tensor(2.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(descriptor, (features, power))


@pytest.mark.parametrize("features", [torch.zeros(1, *SHAPE), -torch.ones(1, *SHAPE)])
def test_dead_features_give_a_finite_descriptor_and_gradient(features):
    features.requires_grad_()
    descriptor = GemHead(PlaceSpec(pooling="gem"), SHAPE)(features)["descriptor"]
    descriptor.sum().backward()
    assert descriptor.isfinite().all() and features.grad.isfinite().all()


def test_whitening_gives_unit_covariance():
    head = GemHead(PlaceSpec(pooling="gem", whitened_size=4), SHAPE)
    descriptors = head.aggregate(torch.rand(200, *SHAPE))
    head.fit_whitening(descriptors)
    white = head.projection(descriptors).detach()
    torch.testing.assert_close(torch.cov(white.T), torch.eye(4), atol=1e-4, rtol=0)


def test_whitening_larger_than_the_channels_is_refused():
    with pytest.raises(ConfigError, match="at most the 6 numbers that gem gives"):
        GemHead(PlaceSpec(pooling="gem", whitened_size=7), SHAPE)


def test_unknown_pooling_and_covariance_are_named_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'netvlad'"):
        PlaceSpec(pooling="netvald")
    with pytest.raises(ConfigError, match="did you mean 'cholesky'"):
        PoseSpec(covariance="cholesk")


@pytest.mark.slow
def test_specs_written_before_gem_and_cholesky_are_netvlad_and_diagonal():
    data = SPEC.to_dict()
    del data["heads"]["place"]["pooling"], data["heads"]["pose"]["covariance"]
    network = MultiHeadNetwork(replace(NetworkSpec.from_dict(data), backbone="resnet18"))
    assert isinstance(network.heads["place"], NetVladHead)
    assert not any("correlation" in key for key in network.state_dict())


def test_covariance_is_positive_definite_for_any_numbers():
    head = PoseNetHead(PoseSpec(hidden=4, covariance="cholesky"), (6,))
    raw = head(torch.rand(500, 6))
    raw["log_variance"] = 30 * torch.randn(500, 6)
    raw["correlation"] = torch.randn(500, 15) * 10 ** torch.linspace(-2, 20, 500)[:, None]
    covariance = head.decode(raw)["pose_covariance"].detach().double().numpy()
    deviations = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    correlations = covariance / deviations[:, :, None] / deviations[:, None, :]
    assert np.linalg.eigvalsh(correlations).min() > 1e-5
    assert np.abs(correlations).max() < 1 + 1e-6
    low, high = 1e-8, np.repeat([1e6, np.pi**2], 3)
    assert (deviations**2 > low * 0.999).all() and (deviations**2 < high * 1.001).all()
    np.testing.assert_array_equal(covariance, covariance.transpose(0, 2, 1))


def test_correlations_start_at_none_and_keep_the_variances():
    assert torch.equal(correlation_factor(torch.zeros(1, 15), below_diagonal()), torch.eye(6)[None])
    head = PoseNetHead(PoseSpec(hidden=4, covariance="cholesky"), (6,))
    raw = head(torch.rand(3, 6))
    raw["log_variance"] = torch.randn(3, 6)
    raw["correlation"] = torch.randn(3, 15)
    covariance = head.decode(raw)["pose_covariance"]
    diagonal = covariance.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(diagonal, raw["log_variance"].exp())
    assert (covariance - torch.diag_embed(diagonal)).abs().max() > 0.1


@pytest.mark.slow
def test_graph_of_gem_and_full_covariance_computes_what_torch_does():
    network = MultiHeadNetwork(SPEC)
    torch.nn.init.normal_(network.heads["pose"].correlation.weight)
    network.eval()
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    session = onnxruntime.InferenceSession(export_graph(network, images))
    names = list(network.spec.outputs)
    graph = dict(
        zip(names, session.run(names, {session.get_inputs()[0].name: images}), strict=True)
    )
    with torch.no_grad():
        torch_outputs = network(torch.from_numpy(images))
    assert graph["descriptor"].shape == (3, 32)
    for name in names:
        np.testing.assert_allclose(graph[name], torch_outputs[name], rtol=1e-3, atol=1e-5)
