"""The model card: what a bundle's README.md says, from what is known and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robot_vision.bundle.bundle import CARD
from robot_vision.networks.network import MultiHeadNetwork

MAX_SHOWN = 2000  # characters of a value
MAX_LINES = 50  # of a list


def write_card(
    path: Path,
    name: str,
    network: MultiHeadNetwork,
    training: Mapping[str, Any],
    metrics: Mapping[str, Any],
    introduction: str | None,
    differences: Mapping[str, float],
) -> None:
    """Writes `README.md` into the bundle's directory `path`."""
    spec = network.spec
    lines = [f"# {name}", ""]
    if introduction:
        lines += [introduction.strip(), ""]
    size = spec.input
    counts = {"backbone": sum(p.numel() for p in network.backbone.parameters())}
    counts |= {n: sum(p.numel() for p in head.parameters()) for n, head in network.heads.items()}
    lines += ["| part | what | parameters |", "| --- | --- | --- |"]
    lines += [f"| backbone | {spec.backbone} | {counts['backbone']:,} |"]
    lines += [
        f"| {head.name} | {head.about(own)} | {counts[head.name]:,} |" for head, own in spec.bound
    ]
    if spec.epistemic:
        what = f"members {spec.epistemic.members}, dropout passes {spec.epistemic.passes}"
        lines.append(f"| several answers | {what} | |")
    lines += [
        "",
        f"Input: RGB uint8 (N, {size.height}, {size.width}, 3), resized with `{size.resize}`"
        + (f" (crop fraction {size.crop_fraction:g})" if size.resize == "crop" else "")
        + "; normalisation is inside the graph.",
        "",
        "| output | shape |",
        "| --- | --- |",
        *(f"| `{name}` | {output.text} |" for name, output in spec.outputs.items()),
        "",
        "## Training",
        "",
        *(_listing(training) or ["Nothing is recorded."]),
        "",
        "## Measured",
        "",
        *(_listing(metrics) or ["Nothing was measured: do not rely on it before you have."]),
        "",
        "## Export",
        "",
        "Largest relative difference between torch and ONNX Runtime on real images, refused above 1e-3:",
        "",
        *(f"- `{output}`: {value:.1e}" for output, value in differences.items()),
    ]
    (path / CARD).write_text("\n".join(lines) + "\n", encoding="utf-8", errors="backslashreplace")


def _listing(data: Mapping[str, Any], indent: str = "") -> list[str]:
    lines: list[str] = []
    for key, value in data.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}- {key}:", *_listing(value, indent + "  ")]
        elif isinstance(value, (list, tuple)) and any(isinstance(v, str) for v in value):
            lines.append(f"{indent}- {key}:")
            lines += [f"{indent}  - {text}" for text in value[:MAX_LINES]]
            if len(value) > MAX_LINES:
                lines.append(f"{indent}  - and {len(value) - MAX_LINES} more")
        elif len(text := str(value)) <= MAX_SHOWN:  # a list of hashes is for programs
            lines.append(f"{indent}- {key}: {text}")
    return lines
