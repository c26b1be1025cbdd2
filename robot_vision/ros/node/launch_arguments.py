"""Launch arguments made from a node's parameters, and what a launch file makes of them.

Each argument is declared and described, none with a second default: one that is empty is one that was not
given, in all launch files. Then the parameter file's value holds, and where there is none the default that
the description ends with. Nothing here imports `launch`, which machines without an
apt-installed ROS do not have.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from robot_vision.bundle.installed import PACKAGE, package_executable
from robot_vision.errors import ConfigError
from robot_vision.files.plain_yaml import YamlError, load_yaml
from robot_vision.ros import EXECUTABLES
from robot_vision.ros.node.dds import large_image_environment
from robot_vision.settings.parameters import Setting, settings

LOG_LEVEL = (
    "info",
    "Lowest level of the messages that are logged: debug, info, warn, error or fatal.",
)
LARGE_IMAGES = (
    "true",
    "true lets Fast DDS or Cyclone DDS carry large images; false leaves their settings alone.",
)
_UNLESS = ", unless params_file says otherwise"
_DIES = {"node": "its process", "process": "it"}


def argument_texts(cls: type, of_file: bool = True) -> dict[str, str]:
    """Returns the description of the launch argument of each parameter of a dataclass.

    Args:
        cls: the dataclass.
        of_file: a parameter file may have another value than the default.
    """
    unless = _UNLESS if of_file else ""
    return {
        s.name: f"{s.text} {_allowed(s)}Default: {_shown(s.default)}{unless}."
        for s in settings(cls)
    }


def common_texts(name: str, process: str = "node") -> dict[str, tuple[str, str]]:
    """Returns defaults and descriptions of the arguments that each launched node has besides its parameters.

    Args:
        name: of the node, as it is by default.
        process: what is restarted.
    """
    return {
        "use_sim_time": ("", f"true takes the time from /clock. Default: false{_UNLESS}."),
        "enclave": (
            "",
            f"SROS 2 enclave of the {process}, such as /{name}; see docs/security.md. Default: none.",
        ),
        "log_level": LOG_LEVEL,
        "respawn": ("false", f"true restarts the {process} if {_DIES[process]} dies."),
    }


def declared(plain: Mapping[str, tuple[str, str]], cls: type) -> dict[str, tuple[str, str]]:
    """Returns all arguments of a launch file with defaults and descriptions: its own, and the parameters."""
    return {**plain, **{name: ("", text) for name, text in argument_texts(cls).items()}}


def overrides(cls: type, texts: Mapping[str, str]) -> dict[str, Any]:
    """Returns the parameters that launch arguments override.

    Args:
        cls: the dataclass of the node's parameters.
        texts: value of each argument as it was typed; empty ones are left out. Lists are written
            `a,b` or `[a, b]`.

    Raises:
        ConfigError: a value of a wrong type or out of range.
    """
    known = {s.name: s for s in settings(cls)}
    result = {}
    for name, text in texts.items():
        if name in known and text.strip():
            value = known[name].coerce(_parsed(known[name], text.strip()))
            result[name] = list(value) if isinstance(value, tuple) else value
    return result


def given_parameters(cls: type, given: Callable[[str], str]) -> dict[str, Any]:
    """Returns what a launch file's arguments override in a parameter file, `use_sim_time` with it.

    Args:
        cls: the dataclass of the node's parameters; each has an argument.
        given: returns an argument as it was typed; empty if it was not.

    Raises:
        ConfigError: a value of a wrong type or out of range.
    """
    values = overrides(cls, {name: given(name) for name in argument_texts(cls)})
    if given("use_sim_time"):
        values["use_sim_time"] = given("use_sim_time").lower() in ("true", "1", "yes")
    return values


def parameter_sources(params_file: str, values: Mapping[str, Any]) -> list[Any]:
    """Returns a launched node's `parameters`: its file, and what overrides it."""
    return [params_file, dict(values)] if values else [params_file]


def program(executable: str) -> tuple[dict[str, str], list[str]]:
    """Returns which program a launched node is, and the arguments with which it begins.

    That is the installed executable. A pip environment has no `lib/robot_vision`: there Python runs its
    module.
    """
    if package_executable(executable):
        return {"package": PACKAGE, "executable": executable}, []
    return {"executable": sys.executable}, ["-m", EXECUTABLES[executable]]


def environment(given: Callable[[str], str]) -> dict[str, str]:
    """Returns the environment of the launched processes, by the argument `large_images`."""
    return large_image_environment(os.environ) if given("large_images").lower() == "true" else {}


def supervision(given: Callable[[str], str]) -> dict[str, Any]:
    """Returns how a launched process is shown and restarted, as keywords of `launch_ros.actions.Node`."""
    return {
        "output": "screen",
        "emulate_tty": True,
        "respawn": given("respawn").lower() == "true",
        "respawn_delay": 2.0,
    }


def node_keywords(
    executable: str, given: Callable[[str], str], values: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the keywords of `launch_ros.actions.Node` for a process with one node."""
    what, module = program(executable)
    return {
        **what,
        **supervision(given),
        "name": given("name"),
        "namespace": given("namespace"),
        "parameters": parameter_sources(given("params_file"), values),
        "arguments": module,
        "ros_arguments": process_arguments(given),
    }


def process_arguments(given: Callable[[str], str]) -> list[str]:
    """Returns the ROS arguments of a whole process: its security enclave, if one is given, and log level."""
    enclave = ["--enclave", given("enclave")] if given("enclave") else []
    return [*enclave, "--log-level", given("log_level")]


def node_arguments(
    name: str, namespace: str, params_file: str, values: Mapping[str, Any]
) -> list[str]:
    """Returns the ROS arguments of one of several nodes in a process.

    Args:
        name: of the node.
        namespace: of the node; empty for none.
        params_file: its YAML file.
        values: parameters that override the file's.
    """
    arguments = ["--ros-args", "-r", f"__node:={name}"]
    if namespace:
        arguments += ["-r", f"__ns:=/{namespace.strip('/')}"]
    arguments += ["--params-file", params_file]
    for key, value in values.items():
        # As YAML, so that text that looks like a number stays text.
        text = yaml.safe_dump(value, default_flow_style=True, width=1 << 20)
        arguments += ["-p", f"{key}:={text.removesuffix('...' + chr(10)).strip()}"]
    return arguments


def _allowed(setting: Setting) -> str:
    return f"{setting.allowed[0].upper()}{setting.allowed[1:]}. " if setting.allowed else ""


def _shown(default: Any) -> str:
    """Returns a default as it would be typed."""
    if isinstance(default, tuple):
        return ",".join(map(_shown, default)) if any(default) else "empty"
    if isinstance(default, bool):
        return str(default).lower()
    return f"{default:g}" if isinstance(default, float) else str(default) or "empty"


def _parsed(setting: Setting, text: str) -> Any:
    if setting.kind == "str":
        return text
    if setting.kind == "tuple[str, ...]":
        # Not as YAML: a camera may be called 1, on or null.
        if text.startswith("[") != text.endswith("]"):
            raise ConfigError(f"{setting.name} is {text!r}: write a,b or [a, b]")
        inner = text[1:-1] if text.startswith("[") else text
        inner = inner.strip().removesuffix(",")  # which YAML allows at the end
        return [part.strip().strip("'\"") for part in inner.split(",")] if inner else []
    if setting.kind.startswith("tuple") and not text.startswith("["):
        # Or as in a URDF: 0 0 1 0 0 0
        text = f"[{text if ',' in text else ', '.join(text.split())}]"
    try:
        value = load_yaml(text)
    except YamlError as error:
        raise ConfigError(
            f"{setting.name} is {text!r}: {setting.allowed or setting.text}"
        ) from error
    if setting.kind == "float" and isinstance(value, str):
        return _float(value)  # nan, as --show-args writes it
    if setting.kind == "tuple[float, ...]" and isinstance(value, list):
        return [_float(v) if isinstance(v, str) else v for v in value]
    return value


def _float(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text
