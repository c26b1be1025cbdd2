"""Published checkpoints: random weights by their names and shapes, converted, against their forward.

The forward is written down here from the public code, with functions of torch alone.
"""

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from robot_vision.bundle.bundle import ModelBundle
from robot_vision.cli import main
from robot_vision.contract import registry
from robot_vision.engines import create_engine
from robot_vision.errors import BundleError
from robot_vision.heads.place.published import resampled_positions
from robot_vision.images.input import IMAGENET_MEAN, IMAGENET_STD, InputSpec
from robot_vision.networks.network import MultiHeadNetwork
from robot_vision.networks.published import convert

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 112, 126, 3), np.uint8)
RESNETS = {"resnet18": (64, (2, 2, 2, 2)), "resnet50": (256, (3, 4, 6, 3))}


def layer(name, *shape, bias=True):
    found = {f"{name}.weight": shape}
    return {**found, f"{name}.bias": shape[:1]} if bias else found


def dino(prefix, c=384, depth=12, mask=True):
    shapes = {f"{prefix}cls_token": (1, 1, c), f"{prefix}pos_embed": (1, 1 + 37 * 37, c)}
    if mask:
        shapes[f"{prefix}mask_token"] = (1, c)
    shapes |= layer(f"{prefix}patch_embed.proj", c, 3, 14, 14)
    for i in range(depth):
        b = f"{prefix}blocks.{i}."
        shapes |= {f"{b}ls1.gamma": (c,), f"{b}ls2.gamma": (c,)}
        shapes |= layer(f"{b}norm1", c) | layer(f"{b}norm2", c)
        shapes |= layer(f"{b}attn.qkv", 3 * c, c) | layer(f"{b}attn.proj", c, c)
        shapes |= layer(f"{b}mlp.fc1", 4 * c, c) | layer(f"{b}mlp.fc2", c, 4 * c)
    return shapes | layer(f"{prefix}norm", c)


def transport(prefix, c=384, m=64, size=128, token=256, hidden=512):
    shapes = {f"{prefix}dust_bin": ()}
    shapes |= layer(f"{prefix}token_features.0", hidden, c)
    shapes |= layer(f"{prefix}token_features.2", token, hidden)
    for name, out in (("cluster_features", size), ("score", m)):
        shapes |= layer(f"{prefix}{name}.0", hidden, c, 1, 1)
        shapes |= layer(f"{prefix}{name}.3", out, hidden, 1, 1)
    return shapes


def queries(c, d, m, rows):
    shapes = layer("aggregator.proj_c", d, c, 3, 3) | layer("aggregator.norm_input", d)
    for i in range(2):
        b = f"aggregator.boqs.{i}."
        shapes[f"{b}queries"] = (1, m, d)
        for name in ("encoder.self_attn", "self_attn", "cross_attn"):
            shapes |= {f"{b}{name}.in_proj_weight": (3 * d, d), f"{b}{name}.in_proj_bias": (3 * d,)}
            shapes |= layer(f"{b}{name}.out_proj", d, d)
        shapes |= layer(f"{b}encoder.linear1", 4 * d, d) | layer(f"{b}encoder.linear2", d, 4 * d)
        for name in ("encoder.norm1", "encoder.norm2", "norm_q", "norm_out"):
            shapes |= layer(f"{b}{name}", d)
    return shapes | layer("aggregator.fc", rows, 2 * m)


def norm2d(name, c):
    shapes = layer(name, c) | {f"{name}.running_mean": (c,), f"{name}.running_var": (c,)}
    return shapes | {f"{name}.num_batches_tracked": ()}


def resnet(prefix, name, stages=4):
    first, blocks = RESNETS[name]
    deep = name == "resnet50"
    shapes = layer(f"{prefix}0", 64, 3, 7, 7, bias=False) | norm2d(f"{prefix}1", 64)
    before = 64
    for stage, count in enumerate(blocks[:stages]):
        width, out = 64 * 2**stage, first * 2**stage
        for i in range(count):
            b = f"{prefix}{4 + stage}.{i}."
            sizes = [(width, before, 1), (width, width, 3), (out, width, 1)] if deep else [
                (width, before, 3), (width, width, 3)]  # fmt: skip
            for k, (o, c, side) in enumerate(sizes, 1):
                shapes |= layer(f"{b}conv{k}", o, c, side, side, bias=False) | norm2d(
                    f"{b}bn{k}", o
                )
            if i == 0 and (stage or deep):
                shapes |= layer(f"{b}downsample.0", out, before, 1, 1, bias=False)
                shapes |= norm2d(f"{b}downsample.1", out)
            before = out
    return shapes


def vgg(prefix):
    numbers = (0, 64), (2, 64), (5, 128), (7, 128), (10, 256), (12, 256), (14, 256), (17, 512)
    shapes, before = {}, 3
    for i, c in (*numbers, *((k, 512) for k in (19, 21, 24, 26, 28))):
        shapes |= layer(f"{prefix}{i}", c, before, 3, 3)
        before = c
    return shapes


def pooled(c, out):
    return {"aggregation.1.p": (1,)} | layer("aggregation.3", out, c)


def random(shapes):
    """Random tensors under which activations stay of the order of one."""
    state = {}
    for name, shape in shapes.items():
        size = int(np.prod(shape[1:])) or 1
        value = torch.randn(shape) * (1.6 / size**0.5 if len(shape) > 1 else 0.2)
        if (
            name.endswith(("running_var", ".p"))
            or ("norm" in name or "bn" in name)
            and "weight" in name
        ):
            value = 1 + 0.2 * torch.rand(shape)
        if name.endswith((".p", "gamma")):
            value = value + (2.0 if name.endswith(".p") else 0.5)
        if name.endswith("num_batches_tracked"):
            value = torch.tensor(7)
        state[name] = value
    return state


# The published forward, on normalised images (N, 3, H, W)


def lin(x, w, name):
    weight = w[f"{name}.weight"]
    return F.linear(x, weight.flatten(1), w[f"{name}.bias"])


def ln(x, w, name, eps=1e-5):
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps)


def dino_tokens(x, w, p, heads=6, depth=12, norm=True):
    n, _, high, wide = x.shape
    rows, columns = high // 14, wide // 14
    x = F.conv2d(x, w[f"{p}patch_embed.proj.weight"], w[f"{p}patch_embed.proj.bias"], stride=14)
    x = torch.cat([w[f"{p}cls_token"].expand(n, -1, -1), x.flatten(2).transpose(1, 2)], 1)
    square = w[f"{p}pos_embed"][:, 1:].reshape(1, 37, 37, -1).permute(0, 3, 1, 2)
    scale = ((rows + 0.1) / 37, (columns + 0.1) / 37)
    square = F.interpolate(square, scale_factor=scale, mode="bicubic", antialias=False)
    positions = square.permute(0, 2, 3, 1).reshape(1, rows * columns, -1)
    x = x + torch.cat([w[f"{p}pos_embed"][:, :1], positions], 1)
    for i in range(depth):
        b = f"{p}blocks.{i}."
        qkv = lin(ln(x, w, f"{b}norm1", 1e-6), w, f"{b}attn.qkv")
        q, k, v = qkv.unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        attended = (q @ k.transpose(2, 3) / q.shape[3] ** 0.5).softmax(3) @ v
        x = x + w[f"{b}ls1.gamma"] * lin(attended.transpose(1, 2).flatten(2), w, f"{b}attn.proj")
        inner = F.gelu(lin(ln(x, w, f"{b}norm2", 1e-6), w, f"{b}mlp.fc1"))
        x = x + w[f"{b}ls2.gamma"] * lin(inner, w, f"{b}mlp.fc2")
    x = ln(x, w, f"{p}norm", 1e-6) if norm else x
    return x[:, 0], x[:, 1:], (rows, columns)


def salad(token, patches, w, p):
    f = lin(F.relu(lin(patches, w, f"{p}cluster_features.0")), w, f"{p}cluster_features.3")
    s = lin(F.relu(lin(patches, w, f"{p}score.0")), w, f"{p}score.3").transpose(1, 2)
    t = lin(F.relu(lin(token, w, f"{p}token_features.0")), w, f"{p}token_features.2")
    n, m, count = s.shape
    s = torch.cat([s, w[f"{p}dust_bin"].expand(n, 1, count)], 1)
    norm = -float(np.log(count + m))
    log_a = torch.full((m + 1,), norm)
    log_a[-1] += float(np.log(count - m))
    v = torch.zeros(n, count)
    for _ in range(3):
        u = log_a - torch.logsumexp(s + v[:, None], 2)
        v = norm - torch.logsumexp(s + u[:, :, None], 1)
    shares = (s + u[:, :, None] + v[:, None] - norm).exp()[:, :-1]
    clusters = F.normalize(torch.einsum("nil,nji->nlj", f, shares), dim=1).flatten(1)
    return F.normalize(torch.cat([F.normalize(t, dim=1), clusters], 1), dim=1)


def attend(q, x, w, name, heads):
    parts = zip(
        w[f"{name}.in_proj_weight"].chunk(3), w[f"{name}.in_proj_bias"].chunk(3), strict=True
    )
    q, k, v = (F.linear(y, *p) for y, p in zip((q, x, x), parts, strict=True))
    q, k, v = (y.unflatten(2, (heads, -1)).transpose(1, 2) for y in (q, k, v))
    found = (q @ k.transpose(2, 3) / q.shape[3] ** 0.5).softmax(3) @ v
    return lin(found.transpose(1, 2).flatten(2), w, f"{name}.out_proj")


def boq(x, w):
    x = F.conv2d(x, w["aggregator.proj_c.weight"], w["aggregator.proj_c.bias"], padding=1)
    x = ln(x.flatten(2).transpose(1, 2), w, "aggregator.norm_input")
    heads, found = x.shape[2] // 64, []
    for i in range(2):
        b = f"aggregator.boqs.{i}."
        x = ln(x + attend(x, x, w, f"{b}encoder.self_attn", heads), w, f"{b}encoder.norm1")
        inner = lin(F.relu(lin(x, w, f"{b}encoder.linear1")), w, f"{b}encoder.linear2")
        x = ln(x + inner, w, f"{b}encoder.norm2")
        q = w[f"{b}queries"].expand(len(x), -1, -1)
        q = ln(q + attend(q, q, w, f"{b}self_attn", heads), w, f"{b}norm_q")
        found.append(ln(attend(q, x, w, f"{b}cross_attn", heads), w, f"{b}norm_out"))
    out = lin(torch.cat(found, 1).transpose(1, 2), w, "aggregator.fc")
    return F.normalize(out.flatten(1), dim=1)


def bn(x, w, name):
    kept = (w[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *kept)


def resnet_map(x, w, p, name, stages=4):
    deep = name == "resnet50"
    x = F.relu(bn(F.conv2d(x, w[f"{p}0.weight"], stride=2, padding=3), w, f"{p}1"))
    x = F.max_pool2d(x, 3, 2, 1)
    for stage, count in enumerate(RESNETS[name][1][:stages]):
        for i in range(count):
            b, step = f"{p}{4 + stage}.{i}.", 2 if stage and not i else 1
            y = x
            for k in range(1, 4 if deep else 3):
                weight = w[f"{b}conv{k}.weight"]
                stride = step if k == (2 if deep else 1) else 1
                y = bn(
                    F.conv2d(y, weight, stride=stride, padding=weight.shape[2] // 2), w, f"{b}bn{k}"
                )
                y = y if k == (3 if deep else 2) else F.relu(y)
            if f"{b}downsample.0.weight" in w:
                x = bn(
                    F.conv2d(x, w[f"{b}downsample.0.weight"], stride=step), w, f"{b}downsample.1"
                )
            x = F.relu(x + y)
    return x


def vgg_map(x, w, p):
    pools, last = (4, 9, 16, 23), 28
    for i in range(last + 1):
        if f"{p}{i}.weight" in w:
            x = F.conv2d(x, w[f"{p}{i}.weight"], w[f"{p}{i}.bias"], padding=1)
        else:
            x = F.max_pool2d(x, 2) if i in pools else F.relu(x)
    return x


def cosplace(x, w):
    p = w["aggregation.1.p"]
    x = F.normalize(x, dim=1).clamp(min=1e-6).pow(p).mean((2, 3)).pow(1 / p)
    return F.normalize(lin(x, w, "aggregation.3"), dim=1)


def forward_salad(x, w):
    token, patches, _ = dino_tokens(x, w, "backbone.model.")
    return salad(token, patches, w, "aggregator.")


def forward_megaloc(x, w):
    token, patches, _ = dino_tokens(x, w, "backbone.")
    return F.normalize(
        lin(salad(token, patches, w, "aggregator.agg."), w, "aggregator.linear"), dim=1
    )


def forward_boq_dino(x, w):
    _, patches, grid = dino_tokens(x, w, "backbone.dino.", norm=False)
    return boq(patches.transpose(1, 2).unflatten(2, grid), w)


MEGALOC = (64 * 256 + 256, 512)
# Method to shapes, forward, and the numbers of a descriptor. The transformers are DINOv2's small one, which
# the public code knows too; MegaLoc's last layer is narrower than the published 8,448 rows.
METHODS = {
    "SALAD": (
        dino("backbone.model.") | transport("aggregator."),
        forward_salad,
        8448,
    ),
    "MegaLoc": (
        dino("backbone.", mask=False)
        | transport("aggregator.agg.", size=256)
        | layer("aggregator.linear", MEGALOC[1], MEGALOC[0]),
        forward_megaloc,
        512,
    ),
    "BoQ DINOv2": (
        dino("backbone.dino.") | queries(384, 384, 64, 32),
        forward_boq_dino,
        12288,
    ),
    "BoQ ResNet-50": (
        resnet("backbone.net.", "resnet50", 3) | queries(1024, 512, 64, 32),
        lambda x, w: boq(resnet_map(x, w, "backbone.net.", "resnet50", 3), w),
        16384,
    ),
    "CosPlace ResNet-18": (
        resnet("backbone.", "resnet18") | pooled(512, 256),
        lambda x, w: cosplace(resnet_map(x, w, "backbone.", "resnet18"), w),
        256,
    ),
    "EigenPlaces ResNet-50": (
        resnet("backbone.", "resnet50") | pooled(2048, 128),
        lambda x, w: cosplace(resnet_map(x, w, "backbone.", "resnet50"), w),
        128,
    ),
    "EigenPlaces VGG-16": (
        vgg("backbone.") | pooled(512, 512),
        lambda x, w: cosplace(vgg_map(x, w, "backbone."), w),
        512,
    ),
}  # fmt: skip


def need_timm(method):
    if any("cls_token" in name for name in METHODS[method][0]):
        pytest.importorskip("timm", reason="timm is not installed (extra `timm`)")


def normalised():
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (torch.from_numpy(IMAGES).permute(0, 3, 1, 2) / 255 - mean) / std


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_converted_network_computes_the_published_forward(method, tmp_path):
    need_timm(method)
    shapes, forward, numbers = METHODS[method]
    state = random(shapes)
    save_file(state, tmp_path / "theirs.safetensors")
    network, name = convert(tmp_path / "theirs.safetensors", InputSpec(), IMAGES.shape[1:3])
    assert name.split(" ")[0] in method or method.startswith("EigenPlaces")
    with torch.inference_mode():
        expected = forward(normalised(), state)
        found = network(torch.from_numpy(IMAGES))["descriptor"]
    assert expected.shape == (2, numbers) and (expected[0] - expected[1]).norm() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-6)


@pytest.mark.slow
def test_one_command_makes_a_bundle_that_answers_the_same(tmp_path, capsys):
    method = "SALAD"
    need_timm(method)
    shapes, forward, numbers = METHODS[method]
    state = random(shapes)
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "theirs.ckpt")
    out = tmp_path / "bundle"
    size = "x".join(map(str, IMAGES.shape[1:3]))
    arguments = [
        "export",
        "--from",
        str(tmp_path / "theirs.ckpt"),
        "--input",
        size,
        "--out",
        str(out),
    ]
    (tmp_path / "photographs").mkdir()
    for i, image in enumerate(IMAGES):
        cv2.imwrite(str(tmp_path / "photographs" / f"{i}.png"), image)
    arguments += ["--images", str(tmp_path / "photographs")]
    assert main(arguments) == 0, capsys.readouterr().err
    assert f"recognised {method.split()[0]}" in capsys.readouterr().out
    bundle = ModelBundle.load(out)
    found = create_engine(bundle, "onnx", "cpu", threads=1).run(IMAGES)["descriptor"]
    with torch.inference_mode():
        np.testing.assert_allclose(found, forward(normalised(), state), rtol=1e-3, atol=1e-5)
    assert bundle.training["weights"].endswith("converted from theirs.ckpt")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shapes", "backbone", "numbers"),
    [
        (
            dino("backbone.model.", 768) | transport("aggregator.", 768),
            "timm/vit_base_patch14_dinov2",
            8448,
        ),
        (
            dino("backbone.", 768, mask=False)
            | transport("aggregator.agg.", 768, size=256)
            | layer("aggregator.linear", 8448, MEGALOC[0]),
            "timm/vit_base_patch14_dinov2",
            8448,
        ),
        (
            dino("backbone.dino.", 768) | queries(768, 384, 64, 32),
            "timm/vit_base_patch14_dinov2",
            12288,
        ),
    ],
    ids=["SALAD", "MegaLoc", "BoQ"],
)
def test_published_sizes_have_a_place_for_every_tensor(shapes, backbone, numbers):
    """The networks that were published, without their numbers: names and shapes alone."""
    pytest.importorskip("timm", reason="timm is not installed (extra `timm`)")
    from robot_vision.contract.spec import NetworkSpec

    with torch.device("meta"):
        state = {name: torch.empty(shape) for name, shape in shapes.items()}
        (key,) = (name for name in shapes if name.endswith("pos_embed"))
        state[key] = torch.zeros(shapes[key], device="cpu")  # is resampled
        found = registry.head("place").trainer().published(state, None)
        assert found.backbone == backbone and found.size == (322, 322)
        spec = NetworkSpec(backbone, InputSpec(*found.size), {"place": found.spec})
        network = MultiHeadNetwork(spec)
    assert network.spec.heads["place"].descriptor_size == numbers
    needed = {name: tuple(t.shape) for name, t in network.state_dict().items()}
    given = {**shapes, **{k: tuple(v.shape) for k, v in found.changed.items()}}
    whole = {"backbone.": "backbone.body.", "head.": "heads.place."}
    for name, shape in given.items():
        old, new = next(pair for pair in found.pairs if name.startswith(pair[0]))
        start = new.partition(".")[0] + "."
        ours = whole[start] + new.removeprefix(start) + name.removeprefix(old)
        assert name.startswith(found.unused) or needed.pop(ours) == shape, name
    assert not needed


def test_positions_of_the_trained_grid_stay_as_they_are():
    positions = torch.randn(1, 1 + 16, 8)
    assert resampled_positions(positions, (4, 4)) is positions
    assert resampled_positions(positions, (2, 6)).shape == (1, 13, 8)


@pytest.mark.slow
def test_missing_and_additional_tensors_are_refused_with_names_and_counts(tmp_path):
    state = random(METHODS["CosPlace ResNet-18"][0])

    def refusal(change):
        other = dict(state)
        change(other)
        save_file(other, tmp_path / "other.safetensors")
        with pytest.raises(BundleError) as caught:
            convert(tmp_path / "other.safetensors", InputSpec(), (64, 64))
        return str(caught.value)

    said = refusal(lambda s: (s.pop("backbone.7.1.bn2.bias"), s.pop("aggregation.3.weight")))
    assert "2 missing: backbone.7.1.bn2.bias, aggregation.3.weight" in said
    said = refusal(
        lambda s: s.update({"backbone.8.weight": torch.zeros(1), "loss.w": torch.zeros(1)})
    )
    assert "2 additional: backbone.8.weight, loss.w" in said and "missing:" not in said
    said = refusal(lambda s: s.update({"backbone.0.weight": torch.zeros(64, 3, 5, 5)}))
    assert "backbone.0.weight has shape (64, 3, 5, 5) and not (64, 3, 7, 7)" in said
    said = refusal(lambda s: s.pop("aggregation.1.p"))
    count = len(state) - 1
    assert f"is no published network that is known here (its {count} tensors begin with" in said


def test_file_with_code_is_refused_in_one_line(tmp_path, capsys):
    class Code:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"state_dict": Code()}, tmp_path / "bad.pth")
    out = str(tmp_path / "bundle")
    assert main(["export", "--from", str(tmp_path / "bad.pth"), "--out", out]) == 2
    assert capsys.readouterr().err.strip().count("\n") == 0
    assert not (tmp_path / "ran").exists()
