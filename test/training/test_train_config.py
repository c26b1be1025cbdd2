"""The configuration: what is refused, and that what is written reads back."""

import sys
from pathlib import Path

import pytest
import yaml

from robot_vision.cli import main
from robot_vision.datasets import DATASETS
from robot_vision.errors import ConfigError
from robot_vision.training.config import TrainingConfig, resolved
from robot_vision.training.config_file import describe, expand, parse, plain, read_config
from robot_vision.training.folder import check_folder, claim_folder

MINIMAL = "heads: [classifier]\ndata: {kind: image_folder, path: x}\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "settings", "named"),
    [
        ("heads: [classifier]\nlop: {epochs: 3}", [], ["'lop'", "did you mean 'loop'"]),
        (
            "heads: [classifier]\nloop: {epoch: 3}",
            [],
            ["'loop.epoch'", "did you mean 'loop.epochs'"],
        ),
        ("heads: [clasifier]", [], ["'clasifier'", "did you mean 'classifier'"]),
        ("heads: []", [], ["heads is empty"]),
        (MINIMAL, ["loop.epochs=three"], ["loop.epochs", "'three'", "whole number"]),
        (MINIMAL, ["loop.epochs=2.5"], ["loop.epochs", "2.5"]),
        (MINIMAL, ["loop.batch_size=0"], ["loop.batch_size is 0", "from 1"]),
        (MINIMAL, ["loop.cache_features=1"], ["loop.cache_features", "true or false"]),
        (MINIMAL, ["optimiser.learning_rate=.nan"], ["finite"]),
        (MINIMAL, ["optimiser.name=adam"], ["'adam'", "did you mean 'adamw'"]),
        (MINIMAL, ["loop.precision=bf16"], ["precision", "bfloat16"]),
        (MINIMAL, ["epochs"], ["key=value"]),
        (MINIMAL + "name: a", ["name.x=3"], ["name is no group"]),
        (MINIMAL + "name: my rooms", [], ["name is 'my rooms'", "letters, digits"]),
        (MINIMAL + f"name: {'n' * 100}\nvariants: [int8]", [], ["-int8'", "at most 100"]),
        ("- a list", [], ["mapping"]),
        ("heads: [", [], ["not valid YAML"]),
    ],
)
def test_wrong_configuration_is_refused_by_name(tmp_path, text, settings, named):
    with pytest.raises(ConfigError) as caught:
        read_config(written(tmp_path, text), settings)
    assert "\n" not in str(caught.value)
    for part in named:
        assert part in str(caught.value)


def test_settings_override_the_file_and_later_ones_win(tmp_path):
    settings = [
        "loop.epochs=4",
        "loop.epochs=5",
        "optimiser.learning_rate=1e-4",
        "heads=[pose, place]",
    ]
    config = read_config(written(tmp_path, MINIMAL + "loop: {epochs: 9, seed: 7}\n"), settings)
    assert (config.loop.epochs, config.loop.seed) == (5, 7)
    assert config.optimiser.learning_rate == 1e-4
    assert config.heads == ("pose", "place")


def test_resolved_configuration_reads_back_equal(tmp_path):
    config = read_config(
        written(tmp_path, MINIMAL),
        ["pose.settings={norm: l2}", "network.freeze=[all]", "place.positive_deg=20"],
    )
    again = parse(TrainingConfig, "", yaml.safe_load(yaml.safe_dump(plain(config))))
    assert again == config


def test_every_setting_is_listed_with_its_default_and_a_text():
    rows = describe()
    keys = [key for key, _, _ in rows]
    assert len(keys) == len(set(keys)) and "loop.epochs" in keys and "network.input" in keys
    assert all(text for _, _, text in rows)
    kinds = {key: text for key, _, text in rows}["data.kind"]
    assert all(kind in kinds for kind in DATASETS)
    data: dict = {}
    for key, default, _ in rows:
        *groups, last = key.split(".")
        inner = data
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[last] = yaml.safe_load(default)
    data["heads"] = ["pose"]
    assert parse(TrainingConfig, "", data) == TrainingConfig(heads=("pose",))


def test_unset_variable_in_a_path_is_named(monkeypatch):
    monkeypatch.delenv("NO_SUCH_FOLDER", raising=False)
    with pytest.raises(ConfigError, match="NO_SUCH_FOLDER"):
        expand("$NO_SUCH_FOLDER/x")


def test_committed_configurations_are_valid():
    files = sorted((Path(__file__).parents[2] / "config" / "training").glob("*.yaml"))
    assert files
    for file in files:
        assert read_config(file).heads


def test_wrong_configuration_is_refused_before_torch_is_imported(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)  # its import would be the error
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    file = tmp_path / "rooms.yaml"
    file.write_text("heads: [classifer]\n")
    assert main(["train", str(file)]) == 2
    assert "Unknown head 'classifer'" in capsys.readouterr().err


def test_other_variants_of_a_finished_run_are_made_by_optimise(tmp_path):
    path = written(tmp_path, MINIMAL)
    claim_folder(tmp_path / "run", resolved(read_config(path)))
    (tmp_path / "run" / "bundle").mkdir()
    with pytest.raises(ConfigError, match="robot-vision optimise .*run/bundle"):
        check_folder(tmp_path / "run", resolved(read_config(path, ["variants=[float16]"])), True)
