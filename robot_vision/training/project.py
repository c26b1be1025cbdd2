"""A project: what somebody needs who has a recording or pictures and wants their robot to know them.

It is a folder with the training configuration, the perception node's parameters, a launch file, and a README
with the commands. What it learns is what the data have the truth for.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from robot_vision.datasets.registry import dataset_options, open_dataset
from robot_vision.datasets.sample import SPLIT_NAMES, Splits
from robot_vision.errors import ConfigError
from robot_vision.files.whole import draft_folder
from robot_vision.training.config import every_kind, trainer_of
from robot_vision.training.config_file import expand, read_config

CONFIG, PARAMETERS, LAUNCH, README = (
    "training.yaml",
    "perception.yaml",
    "robot.launch.py",
    "README.md",
)
_BLOCKS = (25, 12, 6)  # frames, for recordings that are short for the default of 50


@dataclass(frozen=True)
class Project:
    """What was answered.

    Attributes:
        name: of the bundle.
        kind: of the data set.
        data: its folder or file, absolute.
        heads: kinds of the heads that are trained.
        topic: image topic of the robot's camera.
        compressed: whether its images are.
        options: of the data set.
        settings: of heads that have other settings than the default ones, by their names.
    """

    name: str
    kind: str
    data: Path
    heads: Sequence[str]
    topic: str
    compressed: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def bundle(self) -> str:
        """The trained bundle, seen from the project's folder."""
        return f"runs/{self.name}/bundle"


def open_divided(
    kind: str, data: Path, options: Mapping[str, str]
) -> tuple[Splits, dict[str, str]]:
    """Opens a data set; a recording that is too short for the default blocks of time in shorter ones.

    Returns:
        The samples, and the options; with them each split has images of all classes, where that is possible.

    Raises:
        ConfigError, SourceError: see `open_dataset`.
    """
    splits, chosen = open_dataset(kind, data, **options), dict(options)
    if "block_frames" in dataset_options(kind) and "block_frames" not in options:
        for frames in _BLOCKS:
            if _complete(splits):
                break
            chosen = {**options, "block_frames": str(frames)}
            splits = open_dataset(kind, data, **chosen)
        if not _complete(splits):
            splits, chosen = open_dataset(kind, data, **options), dict(options)
    return splits, chosen


def _complete(splits: Splits) -> bool:
    classes = [{s.label for s in splits.split(name)} - {None} for name in SPLIT_NAMES]
    return all(splits.split(name) for name in SPLIT_NAMES) and classes == [classes[0]] * len(
        classes
    )


def learnable(splits: Splits, where: str) -> tuple[list[str], dict[str, str]]:
    """Returns the kinds of heads that these data can teach, and why each other one cannot be taught.

    Args:
        splits: of the data set.
        where: the data set is, for the reasons.
    """
    kinds, reasons = [], {}
    for trainer in every_kind():
        try:
            trainer.check(splits, where)
        except ConfigError as error:
            reasons[trainer.name] = str(error)
        else:
            kinds.append(trainer.name)
    return kinds, reasons


def suggested_settings(kinds: Sequence[str], splits: Splits) -> dict[str, dict[str, Any]]:
    """Returns the settings of heads that these data want otherwise than by default."""
    found = {kind: dict(trainer_of(kind, kind).suggested(splits)) for kind in kinds}
    return {kind: settings for kind, settings in found.items() if settings}


def write_project(folder: Path, project: Project) -> None:
    """Writes the project's files.

    Raises:
        ConfigError: the folder holds something, or the configuration cannot be used.
    """
    check_new(folder)
    if expand(str(project.data)) != str(project.data):
        raise ConfigError(
            f"{project.data} has a $ in its name, which stands for a variable in a configuration: rename it"
        )
    with draft_folder(folder.absolute()) as part:
        (part / CONFIG).write_text(_config(project), encoding="utf-8")
        read_config(part / CONFIG)
        (part / PARAMETERS).write_text(_parameters(project), encoding="utf-8")
        (part / LAUNCH).write_text(_LAUNCH.format(bundle=project.bundle), encoding="utf-8")
        (part / README).write_text(_readme(project), encoding="utf-8")


def check_new(folder: Path) -> None:
    """Raises ConfigError where a project may not be written: something is there already."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ConfigError(
            f"{folder} is there and not empty, and nothing is overwritten: name another folder"
        )


def _yaml(value: Any) -> str:
    text: str = yaml.safe_dump(
        value, default_flow_style=True, width=1 << 20, allow_unicode=True, sort_keys=False
    )
    return text.removesuffix("...\n").strip()


def _config(project: Project) -> str:
    every = (word for kind in project.heads for word in trainer_of(kind, kind).baselines)
    baselines = list(dict.fromkeys(every))  # heads share some
    options = f"  options: {_yaml(dict(project.options))}\n" if project.options else ""
    settings = "".join(f"{kind}: {_yaml(dict(own))}\n" for kind, own in project.settings.items())
    networks = {kind: trainer_of(kind, kind).suggested_network() for kind in project.heads}
    network = "".join(f"  {kind}: {_yaml(dict(own))}\n" for kind, own in networks.items() if own)
    return f"""\
# Read by `robot-vision train {CONFIG}`; `robot-vision train --settings` lists every setting.
name: {_yaml(project.name)}
heads: {_yaml(list(project.heads))}
data:
  kind: {project.kind}
  path: {_yaml(str(project.data))}
{options}network:
  backbone: mobilenet_v2
  weights: torchvision  # downloaded once; without internet, the path of torchvision's mobilenet_v2 .pth file
  freeze: [all]  # only heads learn: minutes on a CPU. With a GPU leave this line out: slower, more accurate
{network}{settings}baselines: {_yaml(baselines)}  # what the heads are compared with in the report
"""


def _parameters(project: Project) -> str:
    values = {
        "cameras": ["camera"],
        "image_topics": [project.topic.removesuffix("/compressed")],
        "transport": "compressed" if project.compressed else "raw",
    }
    lines = "".join(f"    {name}: {_yaml(value)}\n" for name, value in values.items())
    return (
        "# What differs from the perception node's defaults; all parameters: ros2 launch robot_vision\n"
        f"# perception.launch.py --show-args\n/**:\n  ros__parameters:\n{lines}"
    )


_LAUNCH = '''\
"""Starts the perception node with the model of this project.

    ros2 launch ./robot.launch.py
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

HERE = Path(__file__).absolute().parent
BUNDLE = HERE / "{bundle}"


def generate_launch_description():
    """Returns what is started."""
    launch = Path(get_package_share_directory("robot_vision")) / "launch" / "perception.launch.py"
    return LaunchDescription(
        [
            DeclareLaunchArgument("model", default_value=str(BUNDLE), description="Model bundle."),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(str(launch)),
                launch_arguments={{
                    "model": LaunchConfiguration("model"),
                    "params_file": str(HERE / "perception.yaml"),
                }}.items(),
            ),
        ]
    )
'''


def _readme(project: Project) -> str:
    data = shlex.quote(str(project.data))
    options = "".join(f" --option {shlex.quote(f'{k}={v}')}" for k, v in project.options.items())
    heads = [trainer_of(kind, kind).head for kind in project.heads]
    topics = "".join(
        f"| `/perception/camera/{t.name}` | `{t.kind.replace('/msg/', '/')}` | {t.text} |\n"
        for head in heads
        for t in head.topics(None)
        if not t.name.startswith("/")
    )
    return f"""\
# {project.name}

Written by `robot-vision init`. Run the commands in this folder.

Look at the data, then train; what was learned, and how well, is in `runs/{project.name}/bundle/README.md`:

```
robot-vision data inspect {project.kind} {data}{options}
robot-vision train {CONFIG}
```

Try the model on a recording, pictures or a video; then measure it on a drive that it has not seen:

```
robot-vision infer --model {project.bundle} {data}
robot-vision evaluate --model {project.bundle} --bag OTHER_DRIVE
```

On the robot, with `{project.topic}` as the camera:

```
ros2 launch ./{LAUNCH}
```

| topic | type | content |
| --- | --- | --- |
{topics}
Settings are in `{CONFIG}` (training) and `{PARAMETERS}` (the node).
"""


def name_of(folder: Path) -> str:
    """Returns the name of a project's bundle, which is that of its folder in letters, digits and `_-.`."""
    return re.sub(r"[^\w.-]+", "_", folder.absolute().name, flags=re.ASCII).strip("._-") or "model"
