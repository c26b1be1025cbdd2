"""The SROS 2 policy by its text, and what a node does without keys; test_sros2.py has real keys."""

from __future__ import annotations

import fnmatch
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from place_maps import make_map
from tiny_bundle import make_tiny_bundle

from robot_vision.contract import registry
from robot_vision.driving.route import Route
from robot_vision.ros import EXECUTABLES
from robot_vision.ros.node.launch_arguments import common_texts, node_keywords, process_arguments

ROOT = Path(__file__).resolve().parents[2]
POLICY = ROOT / "config" / "sros2" / "policy.xml"


def _policy() -> dict[str, dict[tuple[str, str], list[str]]]:
    """Returns each enclave's allowed names by (kind, action)."""
    enclaves = {}
    for enclave in ElementTree.parse(POLICY).getroot().iter("enclave"):
        allowed: dict[tuple[str, str], list[str]] = {}
        for group in enclave.iter():
            for action in ("publish", "subscribe", "reply", "request"):
                if group.get(action) == "ALLOW":
                    names = [str(item.text) for item in group]
                    allowed.setdefault((group.tag, action), []).extend(names)
        enclaves[enclave.attrib["path"]] = allowed
    return enclaves


def test_the_policy_has_the_form_of_sros2() -> None:
    """The elements and attributes of sros2's policy.xsd, version 0.2.0."""
    root = ElementTree.parse(POLICY).getroot()
    assert root.tag == "policy" and root.attrib == {"version": "0.2.0"}
    children = {
        "policy": {"enclaves"}, "enclaves": {"enclave"}, "enclave": {"profiles"},
        "profiles": {"profile", "metadata"}, "profile": {"topics", "services", "actions"},
        "topics": {"topic"}, "services": {"service"}, "topic": set(), "service": set(),
    }  # fmt: skip
    attributes = {
        "enclave": ({"path"}, set()), "profile": ({"ns", "node"}, set()),
        "topics": (set(), {"publish", "subscribe"}), "services": (set(), {"reply", "request"}),
    }  # fmt: skip
    for element in root.iter():
        assert {child.tag for child in element} <= children[element.tag], element.tag
        if element.tag in attributes:
            needed, optional = attributes[element.tag]
            assert needed <= set(element.attrib) <= needed | optional
            assert optional == set() or set(element.attrib.values()) <= {"ALLOW", "DENY"}
            assert optional == set() or element.attrib
        if element.tag in ("topic", "service"):
            assert re.fullmatch(r"[/A-Za-z0-9_*]+", str(element.text)), element.text
            assert str(element.text).startswith("/")


@pytest.mark.parametrize(
    ("topic", "publishers"),
    [
        ("/camera/image_raw", {"/camera"}),
        ("/odom", {"/base"}),
        ("/perception/camera/pose", {"/perception"}),
        ("/perception/camera/descriptor", {"/perception"}),
        ("/perception/camera/uncertainty", {"/perception"}),
        ("/places/pose", {"/places"}),
        ("/initialpose", {"/places"}),
        ("/filters/pose", {"/filters"}),
        ("/cmd_vel", {"/gate"}),
        ("/filters/prior", set()),  # whoever knows better is named by the user
    ],
)
def test_only_named_enclaves_may_publish(topic: str, publishers: set[str]) -> None:
    found = {
        enclave
        for enclave, allowed in _policy().items()
        for name in allowed.get(("topics", "publish"), [])
        if fnmatch.fnmatch(topic, name)
    }
    assert found == publishers


@pytest.mark.parametrize("kind", registry.BUILT_IN)
def test_the_policy_allows_what_a_head_publishes_and_a_planner_reads(kind: str) -> None:
    head = registry.head(kind)
    names = [f"/perception/camera/{t.name}" for t in head.topics(None) if t.name[0] != "/"]
    names += [f"/perception/{t.name}" for t in head.latched(None)]
    for enclave, action in (("/perception", "publish"), ("/planner", "subscribe")):
        allowed = _policy()[enclave]["topics", action]
        assert not [n for n in names if not any(fnmatch.fnmatch(n, a) for a in allowed)], enclave
    if "camera_info" in head.needs:
        assert "/camera/camera_info" in _policy()["/perception"]["topics", "subscribe"]


def test_sros2_reads_every_enclave_of_the_policy() -> None:
    """sros2 takes whatever stands between enclaves for one of them, stops at a comment there, and leaves the
    rest with keys that allow everything."""
    parser = ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
    enclaves = ElementTree.parse(POLICY, parser).getroot().find("enclaves")
    assert enclaves is not None and [x for x in enclaves if x.tag != "enclave"] == []


@pytest.mark.parametrize(
    "enclave",
    [
        "perception",
        "places",
        "filters",
        "gate",
        "driver",
        "repeat",
        "localiser",
        "camera",
        "base",
        "planner",
    ],
)
def test_a_node_may_serve_its_own_parameters(enclave: str) -> None:
    """Without, rclpy cannot make the node."""
    names = ("describe_parameters", "get_parameter_types", "get_parameters", "list_parameters",
             "set_parameters", "set_parameters_atomically", "get_type_description")  # fmt: skip
    served = _policy()[f"/{enclave}"]["services", "reply"]
    assert {f"/{enclave}/{name}" for name in names} <= set(served)


def test_no_enclave_may_call_services() -> None:
    assert not any(("services", "request") in allowed for allowed in _policy().values())


@pytest.mark.slow
@pytest.mark.ros
@pytest.mark.parametrize(
    ("node", "parameters", "last"),
    [
        ("perception", {"publish_tf": "true"}, "/camera/image_raw"),
        (
            "places",
            {"pose_source": "odometry", "base_frame": "base_link", "verify": "true"},
            "/perception/camera/descriptor",
        ),
        ("filters", {"publish_tf": "true"}, "/perception/camera/pose"),
        ("gate", {"rules": str(ROOT / "config" / "gate_rules.yaml")}, "/cmd_vel_in"),
        ("driver", {"belief_topic": "/filters/belief"}, "/filters/belief"),
        ("repeat", {"collision_topic": "/reflex/camera/collision"}, "/reflex/camera/collision"),
        ("localiser", {}, "/perception/camera/collision"),
    ],
)
def test_the_policy_allows_a_node_all_that_it_does(
    node: str, parameters: dict[str, str], last: str, tmp_path: Path
) -> None:
    """Asks the graph of a running node for its topics and services; the policy has each of them."""
    rclpy = pytest.importorskip("rclpy")
    if node == "places":
        pytest.importorskip("faiss")
    executable = {
        "perception": "perception_node",
        "places": "place_node",
        "filters": "filter_node",
        "gate": "gate_node",
        "driver": "driver_node",
        "repeat": "repeat_node",
        "localiser": "localiser_node",
    }
    if node == "perception":
        parameters = {**parameters, "model": str(make_tiny_bundle(tmp_path / "bundle"))}
    if node == "repeat":
        points = np.array([(0.0, 0.0, 0.0), (0.5, 0.0, 0.0)])
        Route("a.map", "id", "map", "base_link", points).write(tmp_path)
        parameters = {**parameters, "route": str(tmp_path)}
    if node == "localiser":
        make_map(tmp_path / "a.map").close()
        parameters = {**parameters, "map": str(tmp_path / "a.map")}
    command = [sys.executable, "-m", EXECUTABLES[executable[node]], "--ros-args"]
    for key, value in {**parameters, "use_sim_time": "true"}.items():
        command += ["-p", f"{key}:={value}"]
    if node in ("driver", "repeat", "localiser"):  # through the gate
        command += ["-r", "cmd_vel:=cmd_vel_in"]
    log = (tmp_path / "log").open("w")
    process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    context = rclpy.Context()
    rclpy.init(context=context)
    try:
        observer = rclpy.create_node("observer", context=context)
        end = time.monotonic() + 60
        subscribed: set[str] = set()
        while last not in subscribed and time.monotonic() < end:
            time.sleep(0.2)
            if (node, "/") in observer.get_node_names_and_namespaces():
                names = observer.get_subscriber_names_and_types_by_node(node, "/")
                subscribed = {name for name, _ in names}
        assert last in subscribed, (tmp_path / "log").read_text()
        published = {n for n, _ in observer.get_publisher_names_and_types_by_node(node, "/")}
        services = {n for n, _ in observer.get_service_names_and_types_by_node(node, "/")}
        observer.destroy_node()
    finally:
        process.terminate()
        process.wait(timeout=30)
        rclpy.shutdown(context=context)
    allowed = _policy()[f"/{node}"]
    for key, used in (
        (("topics", "publish"), published),
        (("topics", "subscribe"), subscribed),
        (("services", "reply"), services),
    ):
        denied = [n for n in used if not any(fnmatch.fnmatch(n, rule) for rule in allowed[key])]
        assert used and not denied, (key, denied)


@pytest.mark.slow
@pytest.mark.ros
def test_a_node_that_must_be_secure_does_not_start_without_its_keys(tmp_path: Path) -> None:
    pytest.importorskip("rclpy")
    command = [sys.executable, "-m", "robot_vision.ros.perception.node", "--ros-args"]
    command += ["--enclave", "/perception", "-p", "model:=demo"]
    environment = {
        **os.environ,
        "ROS_SECURITY_ENABLE": "true",
        "ROS_SECURITY_STRATEGY": "Enforce",
        "ROS_SECURITY_KEYSTORE": str(tmp_path),
    }
    run = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode != 0
    assert "SECURITY ERROR" in run.stderr and "enclaves/perception" in run.stderr


@pytest.mark.parametrize("name", ["perception", "places", "filters"])
def test_every_launched_node_takes_an_enclave(name: str) -> None:
    """What the nodes then run in is seen in test_launch.py, where launch can be imported."""
    text = (ROOT / "launch" / f"{name}.launch.py").read_text()
    assert f'common_texts("{name}"' in text and "node_keywords(" in text
    given = {"enclave": f"/{name}", "log_level": "info"}
    keywords = node_keywords("place_node", lambda argument: given.get(argument, ""), {})
    assert "enclave" in common_texts(name)
    assert keywords["ros_arguments"][:2] == ["--enclave", f"/{name}"]


def test_an_enclave_reaches_the_process_only_when_given() -> None:
    given = {"log_level": "info", "enclave": "/perception"}
    assert process_arguments(given.__getitem__)[:2] == ["--enclave", "/perception"]
    given["enclave"] = ""
    assert process_arguments(given.__getitem__) == ["--log-level", "info"]
