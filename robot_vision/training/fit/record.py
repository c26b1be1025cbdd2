"""What a run says while it runs: a progress bar, one line an epoch, JSON lines, TensorBoard, curves."""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from robot_vision.contract.metrics import Metric
from robot_vision.errors import ConfigError
from robot_vision.text.console import plain_console
from robot_vision.training.fit.checkpoint import write_whole

_CURVES, _LOSSES = 4, 6  # metrics of a head, and losses, that are drawn at most


class Recorder:
    """Writes to the terminal and into the run's folder, in the first process only.

    Args:
        folder: of the run; `log.jsonl` and `tensorboard/` are written there.
        quiet: says nothing; other processes of a run are quiet and write nothing.
        shown: head to its metrics, of which an epoch's line has the first three; see `Trainer.shown`.
        wandb: project of Weights & Biases, whose offline runs are written to `wandb/`; empty for none.
        config: of the run, plain data, for Weights & Biases.

    Raises:
        ConfigError: the package wandb is not installed, or refuses the project.
    """

    def __init__(
        self,
        folder: Path | None,
        quiet: bool = False,
        shown: Mapping[str, Mapping[str, Metric]] = MappingProxyType({}),
        wandb: str = "",
        config: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.folder = folder
        self.console = plain_console(file=sys.stderr, quiet=quiet)
        self.shown = shown
        self._board: Any = None
        self._earlier: list[dict[str, Any]] = []
        self._wandb = _offline_run(wandb, folder, config) if wandb and folder is not None else None

    def say(self, text: str) -> None:
        """Prints a line."""
        # Names of files may hold what rich takes for markup.
        self.console.print(text, soft_wrap=True)

    def progress(self, name: str, epochs: int, images: int) -> Bar:
        """Returns a progress bar over a stage's images."""
        return Bar(self.console, name, epochs, images)

    def epoch(self, history: Sequence[Mapping[str, Any]], bar: Bar) -> None:
        """Logs the last epoch of a stage's history, and writes all of it to `log.jsonl`."""
        entry = history[-1]
        bar.console.print(_line(entry, self.shown), soft_wrap=True)
        if self.folder is None:
            return
        # The whole file again: a resumed run then has every epoch once.
        lines = [json.dumps(e) for e in [*self._earlier, *history]]
        write_whole(self.folder / "log.jsonl", ("\n".join(lines) + "\n").encode(), sync=False)
        flat = _flat({k: v for k, v in entry.items() if k != "stage"})
        scalars = {f"{entry['stage']}/{key}": value for key, value in flat.items()}
        board = self._writer()
        if board is not None:
            for key, value in scalars.items():
                board.add_scalar(key, value, entry["step"])
            board.flush()
        if self._wandb is not None:
            self._wandb.log(scalars)

    def stage_done(self, history: Sequence[dict[str, Any]]) -> None:
        """Keeps a finished stage's history before that of the next."""
        self._earlier += history

    @property
    def history(self) -> list[dict[str, Any]]:
        """Every epoch of the stages that are done."""
        return self._earlier

    def close(self) -> None:
        """Closes the files of TensorBoard and Weights & Biases."""
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()
            if self._wandb.offline:
                self.say(f"Weights & Biases: wandb sync {Path(self._wandb.dir).parent}")

    def _writer(self) -> Any:
        if self._board is None and self.folder is not None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:  # tensorboard is optional
                return None
            self._board = SummaryWriter(str(self.folder / "tensorboard"))
        return self._board


def _offline_run(project: str, folder: Path, config: Mapping[str, Any]) -> Any:
    """Returns a run of Weights & Biases that stays in the folder, unless WANDB_MODE says otherwise."""
    os.environ["WANDB_MODE"] = os.environ.get("WANDB_MODE") or "offline"
    # Its own errors would be reported, too.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    try:
        import wandb
    except ImportError as error:
        raise ConfigError(
            f"wandb is {project!r}, which needs wandb: pip install 'robot_vision[wandb]'"
        ) from error
    try:
        return wandb.init(
            project=project,
            name=folder.name,
            dir=str(folder),
            config=dict(config),
            settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False,
                                    x_disable_stats=True, x_disable_machine_info=True,
                                    x_save_requirements=False),
        )  # fmt: skip
    except (wandb.Error, ValueError) as error:
        raise ConfigError(f"wandb is {project!r}: {' '.join(str(error).split())}") from error


class Bar:
    """A stage's progress: epochs, images a second, time left."""

    def __init__(self, console: Console, name: str, epochs: int, images: int) -> None:
        self.console = console
        self.images = images
        self._progress = Progress(
            TextColumn(f"{name} epoch {{task.fields[epoch]}}/{epochs}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]} images/s", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            refresh_per_second=2,
            disable=not console.is_terminal or console.quiet,
        )
        self._task = self._progress.add_task(name, total=epochs * images, epoch=0, rate="-")

    def epoch(self, epoch: int, steps: int) -> None:
        """Starts an epoch, of which some steps may be done already."""
        done = epoch * self.images
        self._progress.update(self._task, epoch=epoch + 1, completed=done)

    def advance(self, images: int) -> None:
        """Counts images."""
        speed = self._progress.tasks[self._task].speed
        self._progress.update(self._task, advance=images, rate=f"{speed:.0f}" if speed else "-")

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def _line(entry: Mapping[str, Any], shown: Mapping[str, Mapping[str, Metric]]) -> str:
    text = f"{entry['stage']:8} epoch {entry['epoch']:3}  loss {entry['train']['loss']:8.4f}"
    for head, metrics in entry.get("validation", {}).items():
        there = [(m, metrics[k]) for k, m in shown.get(head, {}).items() if k in metrics]
        text += "".join(f"  {m.words} {m.text(value)}" for m, value in there[:3])
    return text + f"  {entry['seconds']:6.0f} s"


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    flat: dict[str, float] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}/"))
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            flat[f"{prefix}{key}"] = float(value)
    return flat


def draw_curves(
    history: Sequence[Mapping[str, Any]],
    path: Path,
    shown: Mapping[str, Mapping[str, Metric]] = MappingProxyType({}),
) -> bool:
    """Draws each loss and each validation metric over the epochs of all stages, one a panel.

    Args:
        history: of all stages, in order.
        path: a PNG file.
        shown: head to its metrics; see `Trainer.shown`.

    Returns:
        Whether it was drawn: False without matplotlib, and where there is nothing to draw: a solved head has
        no epochs, and without validation images no metric either.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError:
        return False
    panels = curves(history, shown)
    if not panels:
        return False
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    width, height = 4.2 * columns, 2.9 * rows  # inches
    figure = Figure(figsize=(width, height))
    # Room for labels of a known size: the layouts that measure them take longer than all the drawing.
    figure.subplots_adjust(
        left=0.9 / width,
        right=1 - 0.15 / width,
        bottom=0.5 / height,
        top=1 - 0.35 / height,
        wspace=1.05 / 3.15,
        hspace=0.85 / 2.05,
    )
    for number, (title, unit, epochs, values) in enumerate(panels):
        axes = figure.add_subplot(rows, columns, number + 1)
        axes.plot(epochs, values, marker="o" if len(epochs) == 1 else "", color="#0b6bb5")
        axes.set(title=title, xlabel="epoch", ylabel=unit, xlim=(0.5, len(history) + 0.5))
        axes.title.set_fontsize(10)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        for n, (a, b) in enumerate(itertools.pairwise(history), start=1):
            if a["stage"] != b["stage"]:
                axes.axvline(n + 0.5, color="grey", linestyle=":")
                axes.annotate(
                    b["stage"],
                    (n + 0.6, 0.98),
                    xycoords=("data", "axes fraction"),
                    va="top",
                    size=7,
                )
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=100)
    return True


def curves(
    history: Sequence[Mapping[str, Any]], shown: Mapping[str, Mapping[str, Metric]]
) -> list[tuple[str, str, list[int], list[float]]]:
    """Returns the panels of `draw_curves`: title, label of the y axis, epochs from 1 on and values."""
    panels = []
    epochs = list(range(1, len(history) + 1))
    names = list(dict.fromkeys(name for entry in history for name in entry["train"]))
    for name in names:
        if "." in name and len(names) > _LOSSES:  # a part of a head's loss
            continue
        title = "training: loss" if name == "loss" else f"training: loss of {name}"
        found = [
            (n, e["train"][name])
            for n, e in zip(epochs, history, strict=True)
            if name in e["train"]
        ]
        panels.append((title, "loss", *_columns(found)))
    for head, metrics in shown.items():
        for key, metric in list(metrics.items())[:_CURVES]:
            scale = 100.0 if metric.unit == "%" else 1.0
            found = [
                (n, scale * e["validation"][head][key])
                for n, e in zip(epochs, history, strict=True)
                if key in e.get("validation", {}).get(head, {})
            ]
            if found:
                title = f"validation: {head}, {metric.words}"
                panels.append((title, metric.unit or metric.words, *_columns(found)))
    return panels


def _columns(found: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [n for n, _ in found], [value for _, value in found]
