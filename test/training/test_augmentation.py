"""Augmentation: exact geometry, reproducible anyone who loads the data, and what changes is what should."""

import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torchvision.transforms.v2 import functional as TF

from robot_vision.errors import ConfigError
from robot_vision.training.fit.averaging import WeightAverage
from robot_vision.training.samples.augmentation import (
    BatchAugmentation,
    LayoutSettings,
    draw_layout,
    make_augmentation,
    moved,
)
from robot_vision.training.samples.mixup import Mixup
from robot_vision.training.samples.photometric import PhotometricSettings, photometric
from robot_vision.training.samples.viewpoint import ViewpointSettings, turn

H, W = 96, 128
OFF = dict.fromkeys(
    ("brightness", "contrast", "saturation", "hue", "white_balance", "gamma"), 0.0
) | {"blur": 0.0, "noise": 0.0, "jpeg": 0.0, "occlusion": 0.0}
K = (110.0, 90.0, 60.0, 50.0)  # squashed, and not centred
POSE = np.eye(4)
POSE[:3, :3] = Rotation.from_rotvec([0.4, -1.0, 2.0]).as_matrix()
POSE[:3, 3] = [3, -2, 7]


@pytest.fixture
def rng():
    return np.random.default_rng(2)


def photograph(seed=0, height=H, width=W):
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def project(points_map, T_map_camera, matrix):
    local = (points_map - T_map_camera[:3, 3]) @ T_map_camera[:3, :3]
    pixels = local @ matrix.T
    return pixels[:, :2] / pixels[:, 2:]


def blob(pixel):
    """An image with one soft white spot at a pixel."""
    y, x = np.mgrid[:H, :W]
    grey = 255 * np.exp(-((x - pixel[0]) ** 2 + (y - pixel[1]) ** 2) / (2 * 2.0**2))
    return np.repeat(grey[..., None], 3, axis=2).round().astype(np.uint8)


def centre(image, background=0):
    weight = np.abs(image[..., 0].astype(float) - background)
    y, x = np.mgrid[:H, :W]
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


@pytest.mark.parametrize("zoom", [0.8, 1.0, 1.3])
@pytest.mark.parametrize("turned", [(0, 0, 0.3), (0.08, -0.1, 0), (-0.05, 0.06, -0.2)])
def test_points_appear_where_the_turned_camera_would_see_them(turned, zoom, monkeypatch):
    monkeypatch.setattr("robot_vision.training.samples.viewpoint.FILL", (0, 0, 0))
    matrix = ViewpointSettings(camera_matrix=K).matrix(H, W)
    rotation = Rotation.from_rotvec(turned).as_matrix()
    local = np.array([[0.1, -0.1, 2.0], [-0.4, 0.2, 3.0], [0.3, 0.3, 1.5], [0.0, 0.0, 9.0]])
    for point in local @ POSE[:3, :3].T + POSE[:3, 3]:
        before = project(point[None], POSE, matrix)[0]
        image, T, new_matrix = turn(blob(before), POSE, matrix, rotation, zoom)
        expected = project(point[None], T, new_matrix)[0]
        assert 8 < expected[0] < W - 8 and 8 < expected[1] < H - 8
        np.testing.assert_allclose(centre(image), expected, atol=0.25)
        np.testing.assert_array_equal(T[:3, 3], POSE[:3, 3])  # turned about its own centre
        np.testing.assert_allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-12)


def test_pose_of_a_rolled_camera_is_rotated_about_its_optical_axis():
    augment = make_augmentation("poses", roll_deg=30.0)
    angles = []
    for index in range(50):
        T = augment(photograph(), POSE, 0, index).T_map_camera
        roll = Rotation.from_matrix(POSE[:3, :3].T @ T[:3, :3]).as_rotvec(degrees=True)
        np.testing.assert_allclose(roll[:2], 0, atol=1e-9)
        angles.append(roll[2])
    assert -30 <= min(angles) < -15 and 15 < max(angles) <= 30


def test_image_and_pose_of_the_whole_augmentation_agree():
    """The view's own pose and K predict where a spot went, with every geometric setting on."""
    settings = {"camera_matrix": K, "roll_deg": 15.0, "tilt_deg": 3.0, "zoom": 1.2}
    augment = make_augmentation("poses", **OFF, **settings)
    matrix = ViewpointSettings(camera_matrix=K).matrix(H, W)
    point = np.array([0.05, 0.02, 2.0]) @ POSE[:3, :3].T + POSE[:3, 3]
    spot = blob(project(point[None], POSE, matrix)[0])
    for index in range(10):
        view = augment(spot, POSE, 0, index)
        expected = project(point[None], view.T_map_camera, view.camera_matrix)[0]
        y, x = np.unravel_index(cv2.GaussianBlur(view.image[..., 0], (0, 0), 1).argmax(), (H, W))
        assert np.abs(expected - [x, y]).max() < 2.5
        assert np.abs(expected - project(point[None], POSE, matrix)[0]).max() > 0.2


def test_nothing_asked_for_changes_nothing():
    image = photograph()
    still = make_augmentation("poses", **OFF, roll_deg=0.0)
    np.testing.assert_array_equal(still(image, POSE, 0, 0).image, image)
    fixed = {"crop_scale": 1.0, "crop_ratio": 1.0, "flip": 0.0, "rotation_deg": 0.0}
    np.testing.assert_array_equal(
        make_augmentation("labels", **OFF, **fixed)(image, POSE, 0, 0).image, image
    )
    view = make_augmentation("none")(image, POSE, 0, 0)
    assert view.image is image and np.array_equal(view.T_map_camera, POSE)


def test_poses_are_never_mirrored():
    """A mirrored image would have its bright side left about as often as right."""
    image = np.zeros((H, W, 3), np.uint8)
    image[:, W // 2 :] = 200
    augment = make_augmentation("poses")
    views = [augment(image, POSE, 0, i).image.astype(float) for i in range(60)]
    assert all(v[:, W // 2 :].mean() > v[:, : W // 2].mean() for v in views)


def test_mirroring_of_labels_is_about_half_or_none():
    image = np.zeros((H, W, 3), np.uint8)
    image[:, W // 2 :] = 200
    plain = {"crop_scale": 1.0, "rotation_deg": 0.0, "crop_ratio": 1.0}
    for flip, low, high in ((0.5, 30, 70), (0.0, 0, 0)):
        augment = make_augmentation("labels", **OFF, **plain, flip=flip)
        mirrored = 0
        for i in range(100):
            view = augment(image, POSE, 0, i).image
            same, other = np.array_equal(view, image), np.array_equal(view, image[:, ::-1])
            assert same != other
            mirrored += other
        assert low <= mirrored <= high


def test_crop_is_torchvisions_resized_crop():
    image = photograph(height=224, width=224)
    top, left, height, width = 30, 50, 140, 112
    scale = np.array([width, height]) / 224
    affine = np.concatenate(
        [np.diag(scale), (np.array([left, top]) + scale / 2 - 0.5)[:, None]], axis=1
    )
    ours = moved(image, affine)
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    theirs = TF.resized_crop(tensor, top, left, height, width, [224, 224], antialias=False)
    difference = np.abs(ours.astype(int) - theirs.permute(1, 2, 0).numpy())[2:-2, 2:-2]
    assert difference.max() <= 2


def test_crops_keep_the_asked_share_inside_the_image(rng):
    s = LayoutSettings(crop_scale=0.3, crop_ratio=1.5, flip=0.5, rotation_deg=0.0)
    shares, ratios = [], []
    for _ in range(300):
        affine = draw_layout(s, H, W, rng)
        corners = np.array([[-0.5, -0.5], [W - 0.5, H - 0.5]]) @ affine[:, :2].T + affine[:, 2]
        assert corners.min() >= -0.5 - 1e-9
        assert corners[:, 0].max() <= W - 0.5 + 1e-9 and corners[:, 1].max() <= H - 0.5 + 1e-9
        kept = np.abs(corners[1] - corners[0]) / [W, H]
        shares.append(kept.prod())
        ratios.append(kept[0] / kept[1])
    assert 0.29 < min(shares) < 0.4 and 0.9 < max(shares) <= 1
    assert 1 / 1.5 - 1e-9 <= min(ratios) < 0.8 and 1.25 < max(ratios) <= 1.5 + 1e-9


@pytest.mark.parametrize("name", ["labels", "poses"])
def test_views_follow_from_seed_epoch_and_index_in_any_number_of_threads(name):
    images = [photograph(i) for i in range(24)]

    def views(threads, seed=0, epoch=5, order=range(24)):
        augment = make_augmentation(name, seed)
        used = set()

        def one(i):
            used.add(threading.get_ident())
            return i, augment(images[i], POSE, epoch, i)

        with ThreadPoolExecutor(threads) as pool:
            found = dict(pool.map(one, order))
        return [found[i] for i in range(24)]

    first = views(1)
    for other in (views(4), views(3, order=list(reversed(range(24))))):
        for a, b in zip(first, other, strict=True):
            np.testing.assert_array_equal(a.image, b.image)
            np.testing.assert_array_equal(a.T_map_camera, b.T_map_camera)
    for changed in (views(1, seed=1), views(1, epoch=6)):
        assert all((a.image != b.image).any() for a, b in zip(first, changed, strict=True))


def test_image_given_is_never_written_to():
    image = photograph()
    image.setflags(write=False)
    before = image.copy()
    for name in ("labels", "poses"):
        augment = make_augmentation(name, occlusion=1.0, noise=1.0, blur=1.0, jpeg=1.0)
        assert augment(image, POSE, 0, 0).image.flags.writeable
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(
    ("setting", "value", "low", "high"),
    [
        ("brightness", 0.5, 2, 60),
        ("contrast", 0.5, 2, 60),
        ("saturation", 0.9, 2, 60),
        ("hue", 0.2, 2, 60),
        ("white_balance", 0.3, 2, 60),
        ("gamma", 1.0, 2, 60),
        ("blur", 1.0, 0.02, 20),
        ("noise", 1.0, 1, 8),
        ("jpeg", 1.0, 0.2, 8),
        ("occlusion", 1.0, 1, 30),
    ],
)
def test_each_change_of_light_does_something_and_not_too_much(setting, value, low, high, rng):
    settings = PhotometricSettings(**{**OFF, setting: value})
    image = photograph()
    changes = [
        np.abs(photometric(image, settings, rng).astype(int) - image).mean() for _ in range(30)
    ]
    assert low < np.mean(changes) < high


def test_brightness_and_saturation_are_torchvisions(rng):
    image = photograph()
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    for setting, function in (
        ("brightness", TF.adjust_brightness),
        ("saturation", TF.adjust_saturation),
    ):
        settings = PhotometricSettings(**{**OFF, setting: 0.5})
        drawn = {"brightness": 0, "saturation": 2}[setting]  # the draws come in a fixed order
        factors = np.random.default_rng(9).uniform(-1, 1, 3) * 0.5 + 1
        ours = photometric(image, settings, np.random.default_rng(9))
        theirs = function(tensor, float(factors[drawn])).permute(1, 2, 0).numpy()
        assert np.abs(ours.astype(int) - theirs).max() <= 2


def test_one_change_does_not_alter_what_the_others_draw():
    image = photograph()
    base = {**OFF, "noise": 1.0}
    a = photometric(image, PhotometricSettings(**base), np.random.default_rng(1))
    b = photometric(image, PhotometricSettings(**base, blur_px=3.0), np.random.default_rng(1))
    np.testing.assert_array_equal(a, b)


def a_batch(n=6):
    return {
        "images": torch.from_numpy(np.stack([photograph(i) for i in range(n)])),
        "label": torch.tensor([0, 1, 2, -1, 1, 0])[:n],
        "T_map_camera": torch.from_numpy(np.tile(POSE, (n, 1, 1))).float(),
        "has_pose": torch.tensor([True, True, False, True, True, True])[:n],
        "index": torch.arange(100, 100 + n),
        "sequence": torch.zeros(n, dtype=torch.int64),
    }


def test_batch_of_poses_follows_its_cameras():
    batch = a_batch()
    out = BatchAugmentation(make_augmentation("poses", roll_deg=20.0))(batch, 3)
    view = make_augmentation("poses", roll_deg=20.0)(batch["images"][4].numpy(), POSE, 3, 104)
    np.testing.assert_array_equal(out["images"][4], view.image)
    np.testing.assert_allclose(out["T_map_camera"][4], view.T_map_camera, atol=1e-6)
    assert out["camera_matrix"].shape == (6, 3, 3) and out["T_map_camera"].dtype == torch.float32
    assert torch.equal(out["has_pose"], batch["has_pose"])
    assert torch.equal(batch["images"], a_batch()["images"])


def test_batch_of_labels_loses_its_poses():
    out = BatchAugmentation(make_augmentation("labels"))(a_batch(), 0)
    assert not out["has_pose"].any()
    assert torch.equal(out["T_map_camera"], torch.eye(4).expand(6, 4, 4))


def test_generator_may_stand_for_the_epoch():
    augment = BatchAugmentation(make_augmentation("poses"))
    runs = [augment(a_batch(), torch.Generator().manual_seed(s))["images"] for s in (1, 1, 2)]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


@pytest.mark.slow
def test_mixup_is_the_papers_formula():
    batch = a_batch()
    out = Mixup({"label": 3}, alpha=1.0)(batch, 2)
    assert out["images"].dtype == torch.uint8
    assert torch.equal(out["images"][3], batch["images"][3]) and not out["soft_label"][3].any()
    flat = batch["images"].double().flatten(1)
    for i in (0, 1, 2, 4, 5):
        share = out["soft_label"][i]
        torch.testing.assert_close(share.sum(), torch.tensor(1.0))
        # With the share that the label says, some partner explains the pixels to within rounding.
        found = False
        for j in (0, 1, 2, 4, 5):
            own, other = batch["label"][i], batch["label"][j]
            weight = float(share[own]) if own != other else None
            for w in [weight] if weight is not None else np.linspace(0.5, 1, 501):
                mixed = w * flat[i] + (1 - w) * flat[j]
                found |= bool((mixed - out["images"][i].flatten()).abs().max() < 1.0)
        assert found
        assert share[batch["label"][i]] >= 0.5


def test_mixup_follows_from_seed_epoch_and_batch():
    batch = a_batch()
    first = Mixup({"label": 3})(batch, 0)["soft_label"]
    assert torch.equal(Mixup({"label": 3})(batch, 0)["soft_label"], first)
    assert not torch.equal(Mixup({"label": 3})(batch, 1)["soft_label"], first)
    assert not torch.equal(Mixup({"label": 3}, seed=1)(batch, 0)["soft_label"], first)
    alone = {key: value[:1] for key, value in batch.items()}
    assert Mixup({"label": 3})(alone, 0)["soft_label"].tolist() == [[1.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("pose", {}, "did you mean 'poses'"),
        ("poses", {"flip": 0.5}, "Unknown setting"),
        ("poses", {"rol_deg": 3}, "did you mean 'roll_deg'"),
        ("poses", {"tilt_deg": 3.0}, "needs the camera's own camera_matrix"),
        ("poses", {"zoom": 0.5}, "from 1 to 4"),
        ("poses", {"camera_matrix": (1.0, 2.0)}, "fx, fy, cx, cy"),
        ("labels", {"crop_scale": 0.0}, "from 0.01 to 1"),
        ("labels", {"jpeg_quality": 0}, "from 1 to 100"),
        ("labels", {"brightness": 1.5}, "from 0 to 1"),
    ],
)
def test_wrong_settings_are_named(name, settings, message):
    with pytest.raises(ConfigError, match=message):
        make_augmentation(name, **settings)


def test_average_of_weights_is_the_recurrence_and_resumes():
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    net[0].bias.requires_grad_(False)
    average, expected = WeightAverage(net, 0.5), net[0].weight.detach().clone()
    for step in range(1, 8):
        with torch.no_grad():
            net[0].weight += torch.randn(2, 3)
            net[0].bias += 1
        net(torch.randn(4, 3))
        average.update(net)
        d = min(0.5, (1 + step) / (10 + step))
        expected = d * expected + (1 - d) * net[0].weight.detach()
        if step == 4:
            resumed = WeightAverage(net, 0.5)
            resumed.load_state_dict(average.state_dict())
        if step > 4:
            resumed.update(net)
    torch.testing.assert_close(average.average["0.weight"], expected)
    torch.testing.assert_close(resumed.average, average.average, rtol=0, atol=0)
    assert torch.equal(average.average["0.bias"], net[0].bias)
    assert int(average.average["1.num_batches_tracked"]) == 7
    own = net[0].weight.detach().clone()
    with average.applied(net):
        torch.testing.assert_close(net[0].weight.detach(), expected)
    assert torch.equal(net[0].weight, own)


def test_roll_of_a_squashed_image_is_that_of_the_camera():
    """Turned as the network sees it, and turned before it was squashed: the same picture."""
    image = photograph(height=3 * H, width=4 * H)
    rotation = Rotation.from_rotvec([0, 0, 0.1]).as_matrix()
    rolled = turn(image, POSE, ViewpointSettings().matrix(3 * H, 4 * H), rotation, 1.0)[0]
    small, expected = (cv2.resize(i, (H, H), interpolation=cv2.INTER_AREA) for i in (image, rolled))

    def off(aspect):
        matrix = ViewpointSettings(pixel_aspect=aspect).matrix(H, H)
        found = turn(small, POSE, matrix, rotation, 1.0)[0]
        return np.abs(found.astype(int) - expected)[16:-16, 16:-16].mean()

    assert off(4 / 3) < 1.5 < 3.0 < off(1.0)
