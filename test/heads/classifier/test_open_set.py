"""Open-set scores against other libraries, thresholds against what they promise, bundles against damage."""

import shutil

import numpy as np
import pytest
from scipy.special import logsumexp, softmax
from sklearn.covariance import LedoitWolf
from sklearn.neighbors import NearestNeighbors
from tiny_bundle import expected_colour, make_tiny_bundle

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.errors import BundleError, ConfigError
from robot_vision.heads.classifier.answer import UNKNOWN, Classification
from robot_vision.heads.classifier.head import REFERENCES
from robot_vision.heads.classifier.hypotheses import from_hypotheses
from robot_vision.heads.classifier.known_scores import (
    NEIGHBOURS,
    fit_references,
    known_scores,
    logit_score,
    make_scorer,
    shrunk_covariance,
)
from robot_vision.pipeline import Pipeline
from robot_vision.statistics.known_scores import KnownScores, threshold_at


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def test_scores_of_logits_equal_scipy(rng):
    z = rng.normal(size=(50, 6)) * 30
    assert np.allclose(logit_score("max_probability", z, 2.5), softmax(z / 2.5, axis=1).max(axis=1))
    assert np.allclose(logit_score("energy", z, 2.5), 2.5 * logsumexp(z / 2.5, axis=1))
    assert np.array_equal(logit_score("max_logit", z, 2.5), z.max(axis=1))


def test_score_of_logits_refuses_another_name():
    with pytest.raises(ConfigError, match="max_logit"):
        logit_score("max_logits", np.zeros((1, 2)))


@pytest.mark.parametrize("count", [40, 3000])  # NumPy below 1024 references, FAISS above
def test_knn_equals_scikit_learn(rng, count):
    references = rng.normal(size=(count, 16))
    queries = rng.normal(size=(20, 16)) * 5
    scorer = make_scorer("knn", fit_references("knn", references, np.zeros(count, int), 1), 1)
    unit = references / np.linalg.norm(references, axis=1, keepdims=True)
    asked = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    distances = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(unit).kneighbors(asked)[0]
    assert np.allclose(scorer(queries), -distances[:, -1], atol=1e-5)


def test_knn_keeps_rare_classes_when_there_are_too_many_images(rng):
    labels = np.r_[np.zeros(6000, int), np.ones(30, int)]
    features = rng.normal(size=(len(labels), 4))
    kept = fit_references("knn", features, labels, 2)
    assert len(kept) == 4096
    rare = features[labels == 1] / np.linalg.norm(features[labels == 1], axis=1, keepdims=True)
    assert all(np.abs(kept - row).max(axis=1).min() < 1e-6 for row in rare)


def test_shrunk_covariance_equals_ledoit_and_wolf(rng):
    x = rng.normal(size=(30, 50)) @ rng.normal(size=(50, 50))  # fewer images than features
    x -= x.mean(axis=0)
    wanted = LedoitWolf(assume_centered=True).fit(x).covariance_
    assert np.allclose(shrunk_covariance(x), wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


def test_mahalanobis_equals_the_distance_by_scikit_learn(rng):
    labels = np.repeat([0, 1], 60)
    features = rng.normal(size=(120, 5)) @ rng.normal(size=(5, 5)) + 3 * labels[:, None]
    queries = rng.normal(size=(30, 5)) * 4
    scorer = make_scorer("mahalanobis", fit_references("mahalanobis", features, labels, 2), 2)
    means = [features[labels == k].mean(axis=0) for k in (0, 1)]
    centred = np.concatenate([features[labels == k] - means[k] for k in (0, 1)])
    oracle = LedoitWolf(assume_centered=True).fit(centred)
    squares = np.min([oracle.mahalanobis(queries - mean) for mean in means], axis=0)
    assert np.allclose(scorer(queries), -squares, rtol=1e-3)


def test_mahalanobis_does_without_a_class_that_has_no_images(rng):
    features = rng.normal(size=(40, 3))
    references = fit_references("mahalanobis", features, np.repeat([0, 2], 20), 3)
    assert np.isfinite(make_scorer("mahalanobis", references, 3)(features)).all()


@pytest.mark.parametrize("keep", [0.9, 0.95])
def test_threshold_keeps_its_share_of_new_images(rng, keep):
    """Over many draws the mean share is what was asked for, whatever the distribution."""
    shares = []
    for _ in range(2000):
        threshold = threshold_at(rng.gamma(2.0, size=119), keep)
        shares.append((rng.gamma(2.0, size=100) >= threshold).mean())
    assert keep - 0.003 < np.mean(shares) < keep + 0.009


def test_threshold_of_too_few_images_says_how_many_are_needed():
    with pytest.raises(ConfigError, match="at least 19 are needed"):
        threshold_at(np.arange(18.0), 0.95)
    assert threshold_at(np.arange(19.0), 0.95) == 0.0


def test_known_scores_survive_being_written(rng):
    scores = rng.normal(size=500)
    known = KnownScores.of(scores)
    assert KnownScores.from_dict(known.to_dict()) == known
    assert known.threshold(0.95) == pytest.approx(threshold_at(scores, 0.95), rel=1e-5)
    # Rarity and threshold are each other's inverse, and rarity falls as an image gets more familiar.
    assert known.rarity(known.threshold(0.9)) == pytest.approx(0.9)
    rising = [known.rarity(s) for s in np.linspace(-6, 6, 60)]
    assert (np.diff(rising) <= 0).all()
    assert rising[0] == 500 / 501 and rising[-1] == 0.0


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"shares": [0.9], "thresholds": ["x"], "count": 5},
        {"shares": [0.9, 0.95], "thresholds": [1.0], "count": 5},
        {"shares": [0.9, 0.95], "thresholds": [1.0, 2.0], "count": 5},
        {"shares": [0.9], "thresholds": [float("nan")], "count": 5},
        {"shares": [], "thresholds": [], "count": 5},
    ],
)
def test_damaged_known_scores_are_refused(data):
    with pytest.raises(ConfigError, match="known scores"):
        KnownScores.from_dict(data)


@pytest.mark.parametrize("rarity", [None, 0.0, 8e-5, 0.3, 0.97, 1.0])
@pytest.mark.parametrize("best", [0.9999, 0.6, 0.26])
@pytest.mark.parametrize("threshold", [None, -2.0, 2.0])
def test_scores_are_one_distribution_whoever_sorts_them(rarity, best, threshold):
    labels = ("kitchen", "hall", "office", "stairs")
    p = np.array([best, *[(1 - best) / 3] * 3], np.float32)
    classes = Classification(labels, p, 0.0, rarity=rarity)
    for k in (1, 2, 4):
        said = classes.top_k(k, threshold)
        scores = [h.score for h in said]
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) <= 1 + 1e-6
        assert (said[0].label == UNKNOWN) == (threshold == 2.0)
        assert len(said) == k + (threshold == 2.0)
        # Anyone who reads it gets what the network said.
        read, refused = from_hypotheses(labels, [(h.label, h.score) for h in said])
        assert refused == (threshold == 2.0)
        if k == 4 and scores[0] < 1:
            assert read == pytest.approx(p, abs=1e-6)
        again = from_hypotheses(labels, sorted(((h.label, h.score) for h in said), reverse=True))
        assert np.allclose(again[0], read) and (again[1] == refused or scores[0] == scores[1])


def test_unknown_comes_first_with_its_rarity():
    p = np.array([0.1, 0.7, 0.2], np.float32)
    said = Classification(("a", "b", "c"), p, -3.0, rarity=0.97).top_k(2, -2.0)
    assert [h.label for h in said] == [UNKNOWN, "b", "c"]
    assert said[0].score == 0.97
    assert said[1].score == pytest.approx(0.7 * 0.03)  # of what `unknown` leaves
    assert Classification(("a", "b", "c"), p, -1.0, rarity=0.5).top_k(1, -2.0)[0].label == "b"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Bundles calibrated on solid colours near red, green and blue, by score."""
    from colour_samples import colour_samples

    from robot_vision.calibration.run import Data, calibrate
    from robot_vision.contract.calibration import Options
    from robot_vision.datasets.sample import Splits

    folder = tmp_path_factory.mktemp("open_set")
    plain = ModelBundle.load(make_tiny_bundle(folder / "plain"))
    samples = colour_samples(400, np.random.default_rng(5))
    data = Data(Splits((), tuple(samples), ()), "validation", "colours", {})
    made = {}
    for score in ("energy", "knn", "mahalanobis"):
        options = Options(("classifier", "open_set"), {"score": score})
        made[score] = calibrate(plain, data, options, folder / score)[0]
    return made


# The colours of `colour_samples` have a sum of 1.1, and each part is at least 0.1.
RED = np.full((32, 48, 3), (230, 26, 26), np.uint8)
CYAN = np.full((32, 48, 3), (0, 255, 255), np.uint8)


@pytest.mark.parametrize("score", ["knn", "mahalanobis"])
def test_pipeline_scores_features_as_scikit_learn_does(bundles, score):
    bundle = bundles[score]
    references = bundle.material["classifier"].files[REFERENCES]
    images = [RED, CYAN]
    with Pipeline.load(bundle.path, engine="onnx") as pipeline:
        said = [p["classifier"] for p in pipeline(images)]
    colours = np.array([expected_colour(image) for image in images])
    if score == "knn":
        unit = colours / np.linalg.norm(colours, axis=1, keepdims=True)
        nearest = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(references)
        wanted = -nearest.kneighbors(unit)[0][:, -1]
    else:
        whiten, means = references[:3], references[3:]
        gaps = np.einsum("ij,nkj->nki", whiten, colours[:, None] - means[None])
        wanted = -(gaps**2).sum(axis=2).min(axis=1)
    assert [c.known_score for c in said] == pytest.approx(wanted, rel=1e-3, abs=1e-4)
    threshold = bundle.spec.heads["classifier"].unknown_threshold
    assert said[0].top_k(1, threshold)[0].label == "red"
    best = said[1].top_k(1, threshold)[0]
    assert best.label == UNKNOWN
    assert best.score >= 0.95


def test_openvino_and_onnx_agree_on_the_energy(bundles):
    pytest.importorskip("openvino")
    found = []
    for engine in ("onnx", "openvino"):
        with Pipeline.load(bundles["energy"].path, engine=engine) as pipeline:
            found.append([p["classifier"].known_score for p in pipeline([RED, CYAN])])
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_bundle_without_its_references_is_refused(bundles, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(bundles["knn"].path, broken)
    (broken / REFERENCES).unlink()
    with pytest.raises(BundleError, match=REFERENCES):
        ModelBundle.load(broken)


def test_references_that_hold_a_pickle_are_refused(bundles, tmp_path):
    import yaml

    from robot_vision.files.whole import file_sha256

    broken = tmp_path / "broken"
    shutil.copytree(bundles["knn"].path, broken)
    np.save(broken / REFERENCES, np.array([{"a": 1}], object), allow_pickle=True)
    manifest = yaml.safe_load((broken / "bundle.yaml").read_text())
    manifest["files"][REFERENCES] = file_sha256(broken / REFERENCES)
    (broken / "bundle.yaml").write_text(yaml.safe_dump(manifest))
    with pytest.raises(BundleError, match="cannot be read as an array"):
        ModelBundle.load(broken)


@pytest.mark.slow
@pytest.mark.ros
def test_node_takes_the_share_of_known_images_live(bundles, tmp_path):
    """The same image is known where 95 % of known images are kept, and unknown where half are."""
    pytest.importorskip("rclpy")
    from colour_samples import colour_samples
    from ros_helpers import rgb_message, running, stamp_ns, wait_until
    from vision_msgs.msg import Classification, LabelInfo

    bundle = bundles["knn"]
    with Pipeline.load(bundle.path, engine="onnx") as pipeline:
        images = [
            np.full((32, 48, 3), s.source.colour, np.uint8)
            for s in colour_samples(40, np.random.default_rng(9))
        ]
        said = [p["classifier"] for p in pipeline(images)]
        known = known_scores(bundle.calibration)
    at = next(i for i, c in enumerate(said) if 0.6 < c.rarity < 0.9)
    given = {"model": bundle.path, "engine": "onnx", "threads": 1}
    with running(tmp_path, "perception_node", **given) as (node, client):
        heard = client.listen(Classification, "/perception/camera/classification")
        infos = client.listen(LabelInfo, "/perception/label_info")
        publisher = client.publisher(type(rgb_message(images[at], 1)), "/camera/image_raw")

        def answer(stamp: int) -> list:
            message = rgb_message(images[at], stamp)
            found = wait_until(
                lambda: [m for m in heard if stamp_ns(m) == stamp],
                what=f"classification; the node said:\n{node.output[-2000:]}",
                each=lambda: publisher.publish(message),
            )
            return found[-1].results

        best = max(zip(said[at].probabilities, said[at].labels, strict=True))[1]
        assert answer(10**9)[0].class_id == best
        assert client.set_parameters("/perception", known_share=0.5).successful
        first, second = answer(2 * 10**9)[:2]
        assert (first.class_id, second.class_id) == (UNKNOWN, best)
        assert first.score == pytest.approx(said[at].rarity, abs=1e-3)
        wait_until(
            lambda: infos and infos[-1].threshold == pytest.approx(known.threshold(0.5), rel=1e-5),
            what="threshold in label_info",
        )
        assert not client.set_parameters("/perception", known_share=1.0).successful
        assert client.set_parameters("/perception", known_share=0.95).successful
        assert answer(3 * 10**9)[0].class_id == best
