import math

import numpy as np
import pytest
from network_helpers import distinct_batch, small_network, torch
from scipy.spatial import cKDTree
from sklearn.cluster import KMeans
from sklearn.datasets import load_sample_images
from sklearn.decomposition import PCA

from robot_vision.errors import ConfigError
from robot_vision.heads.place.poolings.netvlad import NetVladHead, kmeans
from robot_vision.heads.place.spec import PlaceSpec


def head(clusters=4, channels=6, seed=0, **settings):
    torch.manual_seed(seed)
    return NetVladHead(PlaceSpec(clusters=clusters, **settings), (channels, 5, 7)).eval()


def clustered(count, channels=16, groups=9, seed=0):
    """Descriptors in groups, as those of images are."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(groups, channels))
    points = centres[rng.integers(groups, size=count)] + rng.normal(0, 0.6, (count, channels))
    return torch.from_numpy(points).float()


def photograph_descriptors(channels=48):
    """Descriptors of real photographs: 4 x 4 colour patches, about 34,000."""
    patches = [
        np.lib.stride_tricks.sliding_window_view(image, (4, 4, 3))[::4, ::4].reshape(-1, channels)
        for image in load_sample_images().images
    ]
    return torch.from_numpy(np.concatenate(patches).astype(np.float32) / 255 - 0.4)


def unit(x, axis):
    norm = np.linalg.norm(x, axis=axis, keepdims=True)
    return x / np.maximum(norm, 1e-12)


def paper(features, w, b, c):
    """Equations 3 and 4 of the paper, literally: loops over images, positions and clusters."""
    descriptors = []
    for image in features:
        columns = unit(image.reshape(len(image), -1).T, 1)  # (P, C)
        v = np.zeros_like(c)
        for x in columns:
            s = np.array([w[k] @ x + b[k] for k in range(len(c))])
            a = np.exp(s - s.max())
            a /= a.sum()
            for k in range(len(c)):
                v[k] += a[k] * (x - c[k])
        descriptors.append(unit(unit(v, 1).ravel(), 0))
    return np.array(descriptors)


def test_descriptor_is_the_papers():
    module = head().double()
    torch.nn.init.normal_(
        module.assignment.weight, std=3
    )  # apart from the centres, as after training
    features = torch.randn(3, 6, 5, 7, dtype=torch.float64)
    parts = (module.assignment.weight[..., 0, 0], module.assignment.bias, module.centres)
    expected = paper(features.numpy(), *(part.detach().numpy() for part in parts))
    actual = module(features)["descriptor"].detach().numpy()
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("clusters", [2, 16, 64])
@pytest.mark.parametrize("kind", ["photographs", "groups"])
def test_initial_assignment_is_to_the_nearest_centre_for_every_descriptor(clusters, kind):
    descriptors = photograph_descriptors() if kind == "photographs" else clustered(30_000, 48)
    module = head(clusters, channels=48)
    alpha = module.initialise(descriptors, seed=1, iterations=15)
    x = torch.nn.functional.normalize(descriptors, dim=1)
    with torch.inference_mode():
        soft = module.assignment(x[:, :, None, None])[..., 0, 0].softmax(1)
    centres = module.centres.detach().double().numpy()
    distances, nearest = cKDTree(centres).query(x.double().numpy(), k=2)
    assert (soft.argmax(1).numpy() == nearest[:, 0]).all()
    # The relation behind it, and the authors' choice of alpha.
    torch.testing.assert_close(
        module.assignment.weight[..., 0, 0].double(), torch.from_numpy(2 * alpha * centres)
    )
    torch.testing.assert_close(
        module.assignment.bias.double(), torch.from_numpy(-alpha * (centres**2).sum(1))
    )
    gap = np.mean(distances[:, 1] ** 2 - distances[:, 0] ** 2)
    assert math.exp(alpha * gap) == pytest.approx(100, rel=1e-3)


@pytest.mark.parametrize("ratio", [2.0, 10.0, 1000.0])
def test_initial_assignment_is_as_soft_as_asked(ratio):
    descriptors = clustered(2000, 48)
    module = head(8, channels=48)
    module.initialise(descriptors, ratio=ratio)
    x = torch.nn.functional.normalize(descriptors, dim=1)
    with torch.inference_mode():
        logits = module.assignment(x[:, :, None, None])[..., 0, 0]
    best = logits.double().topk(2, dim=1).values
    # The mean of the ratio's logarithm: what "on average" means.
    assert float((best[:, 0] - best[:, 1]).mean()) == pytest.approx(math.log(ratio), rel=1e-3)


def test_order_of_positions_does_not_matter():
    module, features = head(), torch.randn(2, 6, 5, 7)
    shuffled = features.flatten(2)[:, :, torch.randperm(35)].view(2, 6, 7, 5)
    torch.testing.assert_close(module(features), module(shuffled))


def test_scale_of_the_features_does_not_matter():
    module, features = head(), torch.randn(2, 6, 5, 7)
    torch.testing.assert_close(module(features), module(features * 1e3))


@pytest.mark.parametrize("whitened", [0, 8])
def test_descriptor_has_norm_one_even_of_nothing(whitened):
    module = head(whitened_size=whitened)
    features = torch.cat([torch.randn(2, 6, 5, 7), torch.zeros(1, 6, 5, 7), torch.ones(1, 6, 5, 7)])
    descriptor = module(features)["descriptor"]
    assert descriptor.shape == (4, module.size) == (4, whitened or 24)
    torch.testing.assert_close(descriptor.norm(dim=1), torch.ones(4))


@pytest.mark.parametrize("whitened", [0, 5])
def test_gradients_are_those_of_the_function(whitened):
    module = head(clusters=3, channels=4, whitened_size=whitened).double()
    features = torch.randn(2, 4, 2, 3, dtype=torch.float64, requires_grad=True)

    def run(x, weight, bias, centres):
        parameters = {"assignment.weight": weight, "assignment.bias": bias, "centres": centres}
        return torch.func.functional_call(module, parameters, x)["descriptor"]

    parameters = (module.assignment.weight, module.assignment.bias, module.centres)
    inputs = tuple(p.detach().clone().requires_grad_() for p in parameters)
    assert torch.autograd.gradcheck(run, (features, *inputs))


def test_centres_and_assignment_train_apart():
    module = head()
    module.initialise(clustered(200, 6))
    weight = module.assignment.weight.detach().clone()
    optimiser = torch.optim.SGD([module.centres], lr=1.0)
    module(torch.randn(2, 6, 5, 7))["descriptor"][:, 0].sum().backward()
    assert module.assignment.weight.grad.abs().sum() > 0
    optimiser.step()
    assert torch.equal(module.assignment.weight, weight)


def test_whitening_is_sklearns_pca():
    module = head(clusters=3, channels=6, whitened_size=7)
    rng = np.random.default_rng(0)
    train = rng.normal(size=(200, 18)) @ rng.normal(size=(18, 18)) + 1.0
    module.fit_whitening(torch.from_numpy(train))
    pca = PCA(7, whiten=True, svd_solver="full").fit(train)
    ours = (
        train @ module.whitening_weight.double().numpy().T + module.whitening_bias.double().numpy()
    )
    theirs = pca.transform(train)
    sign = np.sign((ours * theirs).sum(0))
    np.testing.assert_allclose(ours * sign, theirs, atol=1e-4)
    np.testing.assert_allclose(np.cov(ours.T), np.eye(7), atol=1e-4)


def test_whitening_from_fewer_images_than_numbers_is_sklearns_too():
    module = head(clusters=8, channels=16, whitened_size=10)
    train = np.random.default_rng(0).normal(size=(40, 128))
    module.fit_whitening(torch.from_numpy(train))
    theirs = PCA(10, whiten=True, svd_solver="full").fit(train).transform(train)
    ours = (
        train @ module.whitening_weight.double().numpy().T + module.whitening_bias.double().numpy()
    )
    # Dot products know nothing of the axes' signs.
    np.testing.assert_allclose(ours @ ours.T, theirs @ theirs.T, atol=1e-3)


def test_descriptor_is_whitened_and_normalised_again():
    module, plain = head(whitened_size=8), head()
    features = torch.randn(30, 6, 5, 7)
    with torch.inference_mode():
        module.fit_whitening(module.aggregate(features))
        vlad = plain(features)["descriptor"]
        expected = vlad @ module.whitening_weight.T + module.whitening_bias
        expected = expected / expected.norm(dim=1, keepdim=True)
        torch.testing.assert_close(module(features)["descriptor"], expected, rtol=1e-4, atol=1e-5)


def test_kmeans_is_as_good_as_sklearns():
    points = clustered(3000)
    inertia = []
    for seed in range(3):
        centres = kmeans(points, 9, seed)
        inertia.append(float(torch.cdist(points, centres).min(1).values.square().sum()))
    theirs = KMeans(9, n_init=3, random_state=0).fit(points.numpy()).inertia_
    assert min(inertia) <= theirs * 1.02


def test_kmeans_with_one_seed_repeats():
    points = clustered(500)
    assert torch.equal(kmeans(points, 5, 7), kmeans(points, 5, 7))
    assert not torch.equal(kmeans(points, 5, 7), kmeans(points, 5, 8))


def test_kmeans_of_fewer_different_points_than_clusters_is_finite():
    points = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).repeat(10, 1)
    centres = kmeans(points, 5)
    assert centres.isfinite().all()
    assert torch.cdist(points, centres).min(1).values.max() == 0


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda m: m.initialise(torch.randn(3, 6)), "3 descriptors are too few for 4 clusters"),
        (lambda m: m.initialise(torch.randn(9, 5)), r"shape \(9, 5\): it must be \(P, 6\)"),
        (lambda m: m.initialise(torch.full((9, 6), math.nan)), "not finite"),
        (lambda m: m.initialise(torch.randn(9, 6), ratio=1.0), "ratio is 1.0: it must be above 1"),
        (lambda m: m.fit_whitening(torch.randn(8, 24)), "8 images are too few to whiten to 8"),
        (lambda m: m.fit_whitening(torch.randn(50, 2)), r"it must be \(n, 24\)"),
        (
            lambda m: m.fit_whitening(torch.randn(50, 3) @ torch.randn(3, 24)),
            "in 3 directions only",
        ),
        (lambda m: NetVladHead(PlaceSpec(), (512,)), "needs a feature map"),
        (lambda m: head(whitened_size=25), "whitened_size is 25.*4 x 6 = 24"),
    ],
)
def test_unusable_input_is_a_config_error(act, message):
    with pytest.raises(ConfigError, match=message):
        act(head(whitened_size=8))


@pytest.mark.slow
def test_one_batch_is_overfit():
    spec = PlaceSpec(tap="layer2", clusters=4)
    network = small_network(size=32, place=spec, classifier=None, pose=None)
    images = distinct_batch(4)
    images[2:] = images[:2] // 2 + 60  # 0 and 2, 1 and 3 are one place each, in another light
    with torch.inference_mode():
        columns = network.forward_features(images)["place"][0].permute(0, 2, 3, 1).flatten(0, 2)
        network.heads["place"].initialise(columns)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(25):
        optimiser.zero_grad()
        d = network.raw(images)["place"]["descriptor"]
        same, other = (d[:2] - d[2:]).square().sum(1), (d[:2] - d[2:].flip(0)).square().sum(1)
        loss = (same - other + 1.5).clamp(min=0).mean()
        loss.backward()
        optimiser.step()
    with torch.inference_mode():
        d = network(images)["descriptor"]
    similarity = d[:2] @ d[2:].T
    assert similarity.diag().min() > 0.8
    assert similarity.flip(1).diag().max() < 0.4
