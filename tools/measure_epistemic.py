#!/usr/bin/env python3
"""What several answers of the heads are worth on real data: the tables of docs/training_results.md.

    python tools/measure_epistemic.py classifier RUN --unknown FOLDER
    python tools/measure_epistemic.py pose RUN

RUN is the folder of a `robot-vision train` run with `epistemic: {members: M, passes: S}`. Its network is
measured four ways on the run's own test images: its first head alone, that head with S passes, M heads, and
M heads with S passes each. Each way has its own temperature, fitted on the run's validation images; the
variances of poses are those of the run, which were fitted for all answers together.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import yaml
from scipy.stats import spearmanr

from robot_vision.heads.classifier.network import entropy
from robot_vision.heads.pose.training import pose_errors
from robot_vision.images.decode import to_rgb
from robot_vision.networks.checkpoint import load_network
from robot_vision.networks.ensemble import with_members, with_monte_carlo
from robot_vision.networks.export import prepare_images
from robot_vision.networks.network import MultiHeadNetwork
from robot_vision.recordings import open_source
from robot_vision.statistics.reliability import calibration_error
from robot_vision.statistics.temperature import fit_temperature
from robot_vision.studies.stress.measure import auroc
from robot_vision.training.config import TrainingConfig
from robot_vision.training.config_file import parse
from robot_vision.training.samples.data import SampleSet
from robot_vision.training.setup import open_splits
from robot_vision.training.ship.evaluate import Views, predict

CPU = torch.device("cpu")


def main() -> int:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("head", choices=("classifier", "pose"))
    parser.add_argument("run", type=Path)
    parser.add_argument("--unknown", help="images that show no class of the model's")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    text = (args.run / "config.yaml").read_text(encoding="utf-8")
    config = parse(TrainingConfig, "", yaml.safe_load(text))
    splits = open_splits(config)
    network = load_network(args.run / "bundle" / "weights.safetensors")
    sets = {}
    for name in ("validation", "test"):
        sets[name] = SampleSet.of(splits.split(name), splits.labels, network.spec.input)
        sets[name].load(2)
    if args.head == "pose":
        pose(network, sets["test"])
        return 0
    unknown = unknown_images(args.unknown, network) if args.unknown else None
    classifier(network, sets, unknown)
    return 0


def ways(network: MultiHeadNetwork) -> Iterator[tuple[str, MultiHeadNetwork]]:
    """Yields the network in its four ways of answering."""
    epistemic = network.spec.epistemic
    assert epistemic is not None
    single = with_members(with_monte_carlo(network, 0), [])
    whole = with_monte_carlo(network, 0)
    yield "one answer", single
    if epistemic.passes:
        yield f"{epistemic.passes} passes", with_monte_carlo(single, epistemic.passes)
    if epistemic.members > 1:
        yield f"{epistemic.members} heads", whole
        if epistemic.passes:
            yield f"{epistemic.members} heads, {epistemic.passes} passes each", network


def unknown_images(path: str, network: MultiHeadNetwork) -> torch.Tensor:
    """Returns the images of a folder at the network's size, uint8 (N, H, W, 3)."""
    with open_source(path) as source:
        images = [to_rgb(frame.message) for frame in source]
    return torch.from_numpy(prepare_images(images, network.spec.input))


def classifier(
    network: MultiHeadNetwork, sets: dict[str, SampleSet], unknown: torch.Tensor | None
) -> None:
    """Prints accuracy, calibration, and how well each score tells unknown images."""
    print(
        "| answers | accuracy | ECE | NLL | AUROC max probability | AUROC entropy | "
        "AUROC mutual information | AUROC energy |\n" + "| --- " * 8 + "|"
    )
    cached: dict[str, dict[str, torch.Tensor]] = {}
    for title, way in ways(network):
        held_out = predict(way, Views(sets["validation"]), ("classifier",), CPU)["classifier"]
        logits = held_out.get("logit_samples", held_out["logits"])
        true = sets["validation"].targets["label"].numpy()
        way.heads["classifier"].constants["temperature"].fill_(  # type: ignore[union-attr,operator]
            fit_temperature(logits.numpy(), true)
        )
        found = predict(way, Views(sets["test"]), ("classifier",), CPU)["classifier"]
        true = sets["test"].targets["label"]
        p = found["probabilities"].double()
        right = (p.argmax(1) == true).numpy()
        confidence = p.amax(1).numpy()
        ece = calibration_error(confidence, right)(np.ones((1, len(right))))[0]
        nll = -p[torch.arange(len(p)), true].clamp(min=1e-12).log().mean()
        cells = [f"{right.mean():.4f}", f"{ece:.4f}", f"{nll:.4f}"]
        if unknown is not None:
            strange = _strange(way, unknown, cached)
            for score in (_maximum, _entropy, _information, _energy):
                a, b = score(found, way), score(strange, way)
                cells.append("" if a is None or b is None else f"{auroc(a, b):.4f}")
        print(f"| {title} | " + " | ".join(cells) + " |", flush=True)


def _strange(
    way: MultiHeadNetwork, images: torch.Tensor, cached: dict[str, dict[str, torch.Tensor]]
) -> dict[str, torch.Tensor]:
    if "features" not in cached:  # all ways share the backbone
        with torch.inference_mode():
            parts = [way.forward_features(batch)["classifier"][0] for batch in images.split(32)]
        cached["features"] = {"classifier": torch.cat(parts)}
    head = way.heads["classifier"]
    with torch.inference_mode():
        features = {"classifier": [cached["features"]["classifier"]]}
        raw = way.raw_from_features(features)["classifier"]
        return {**raw, **head.decode(raw)}  # type: ignore[operator]


def _maximum(found: dict[str, torch.Tensor], way: MultiHeadNetwork) -> np.ndarray:
    return found["probabilities"].amax(1).double().numpy()


def _entropy(found: dict[str, torch.Tensor], way: MultiHeadNetwork) -> np.ndarray:
    return -entropy(found["probabilities"].double()).numpy()


def _information(found: dict[str, torch.Tensor], way: MultiHeadNetwork) -> np.ndarray | None:
    return -found["mutual_information"].double().numpy() if "mutual_information" in found else None


def _energy(found: dict[str, torch.Tensor], way: MultiHeadNetwork) -> np.ndarray:
    t = float(way.heads["classifier"].constants["temperature"])  # type: ignore[arg-type]
    return (t * (found["logits"].double() / t).logsumexp(1)).numpy()


def pose(network: MultiHeadNetwork, test: SampleSet) -> None:
    """Prints pose errors, whether the covariance is true, and whether it follows the error."""
    print(
        "| answers | median m | median deg | NEES / ideal | 95 % interval | coverage 50 | 68 | 90 | 95 | "
        "rank correlation of error and sigma | of error and spread |\n" + "| --- " * 11 + "|"
    )
    for title, way in ways(network):
        found = predict(way, Views(test), ("pose",), CPU)["pose"]
        errors = pose_errors(
            found["position"], found["orientation_xyzw"], test.targets["T_map_camera"]
        )
        covariance = found["pose_covariance"].double()
        nees = (errors * torch.linalg.solve(covariance, errors[:, :, None])[:, :, 0]).sum(1).numpy()
        metres, degrees = errors[:, :3].norm(dim=1), torch.rad2deg(errors[:, 3:].norm(dim=1))
        cells = [f"{np.median(metres):.3f}", f"{np.median(degrees):.2f}", f"{nees.mean() / 6:.2f}"]
        low, high = interval(nees)
        cells.append(f"{low:.2f} to {high:.2f}")
        for bound in (5.348, 7.006, 10.645, 12.592):  # chi squared with 6 degrees of freedom
            cells.append(f"{(nees <= bound).mean():.3f}")
        for name in ("pose_covariance", "pose_spread"):
            if name not in found:
                cells.append("")
                continue
            sigma = found[name].diagonal(dim1=1, dim2=2)[:, :3].sum(1)
            cells.append(f"{spearmanr(sigma, metres).statistic:.2f}")
        print(f"| {title} | " + " | ".join(cells) + " |", flush=True)


def interval(nees: np.ndarray) -> tuple[float, float]:
    """Returns the 95 percent interval of the mean over its ideal, by blocks of 50 frames."""
    blocks = np.array_split(nees, max(1, len(nees) // 50))
    rng = np.random.default_rng(0)
    means = [
        np.concatenate([blocks[i] for i in rng.integers(0, len(blocks), len(blocks))]).mean() / 6
        for _ in range(2000)
    ]
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


if __name__ == "__main__":
    sys.exit(main())
