"""Drivers that see, without ROS: a model in the loop, the gate in front of any driver, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from steering_bundle import make_steering_bundle, random_weights
from tiny_bundle import make_tiny_bundle

from robot_vision.bundle.bundle import answered_topics
from robot_vision.cli import main
from robot_vision.driving.law import DRONET, FREE_DISTANCE, Law, Seen
from robot_vision.errors import ConfigError
from robot_vision.gate.installed import find_rules
from robot_vision.gate.rules import parse_rules
from robot_vision.simulation.drivers import Straight
from robot_vision.simulation.nodes import COLLISION, NEAR, STEERING
from robot_vision.simulation.referee import judge
from robot_vision.simulation.robot import Mount, Robot
from robot_vision.simulation.sight import Sight, open_pipeline
from robot_vision.simulation.simulator import Simulator
from robot_vision.simulation.watching import Gated, ModelDriver
from robot_vision.simulation.world.home import default_world
from robot_vision.simulation.world.homes import random_home

HOME = default_world()
EAST = (6.0, 0.5, 0.0)  # in the corridor, 3.8 m before its east wall touches the robot


def sight_of(path: Path, **answers: object) -> Sight:
    pipeline = open_pipeline(make_steering_bundle(path, **answers), "onnx", "cpu")
    return Sight(pipeline, Robot())


# --- a model in the loop ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_model_drives_by_the_law_that_the_node_has(tmp_path: Path) -> None:
    sight = sight_of(tmp_path / "b", steering=0.25, collision=0.2)
    simulator, robot = Simulator(HOME, 0, start=EAST), Robot()
    driver, law = ModelDriver(sight, robot, DRONET), Law(robot.law(DRONET))
    for _ in range(5):
        expected = law.drive(Seen(simulator.now_ns, 0.25, 0.2)).velocity
        speed, turn_rate = driver(simulator)
        assert speed == pytest.approx(expected.linear[0], abs=1e-6)
        assert turn_rate == pytest.approx(expected.angular[2], abs=1e-6)
        for _ in range(5):
            simulator.step()
    assert 0.4 < speed < 0.48 and turn_rate == pytest.approx(0.25 * 1.5, abs=1e-3)
    assert driver.reason == ""


@pytest.mark.slow
def test_model_stands_and_turns_to_one_side_while_it_expects_a_collision(tmp_path: Path) -> None:
    driver = ModelDriver(sight_of(tmp_path / "b", steering=-0.1, collision=0.9), Robot(), DRONET)
    drive = judge(Simulator(HOME, 0, start=EAST), driver, 1.0)
    # Twice it was stuck and carried, and began again.
    assert drive.way_m == 0 and drive.stuck == 2 and drive.stops == {"collision": 3}
    assert drive.turn_change_rad_s2 == pytest.approx(3 * 1.5 / drive.time_s)  # no swinging


@pytest.mark.slow
def test_model_keeps_to_what_the_lower_end_of_its_depth_allows(tmp_path: Path) -> None:
    """The camera is 0.1 m before the robot's centre: depth d is at d + 0.1, and its lower end nearer."""
    near = 0.1 + 0.8 * np.exp(-1.6448536 * 0.1)
    sight = sight_of(tmp_path / "b", depth_m=0.8, sigma=0.1)
    # The test's map has few pixels: behind a wider lens fewer than `obstacle_pixels` are in the path.
    simulator, robot = Simulator(HOME, 0, mount=Mount(field_deg=110.0), start=EAST), Robot()
    for law in (DRONET, FREE_DISTANCE):
        driver = ModelDriver(sight, robot, law, by_distance=True)
        for _ in range(4):
            speed, _ = driver(simulator)
            for _ in range(5):
                simulator.step()
        # v t + v^2 / 2a = d - d0
        s = robot.law(law)
        way = speed * s.reaction_s + speed**2 / (2 * s.deceleration_m_s2)
        assert way == pytest.approx(near - s.stop_distance_m, abs=2e-3)
    blocked = sight_of(tmp_path / "near", depth_m=0.25)
    driver = ModelDriver(blocked, robot, FREE_DISTANCE)
    assert driver(simulator) == (0.0, robot.max_turn_rate_rad_s) and driver.reason == "obstacle"


@pytest.mark.slow
def test_answer_that_is_not_finite_stops_the_robot_and_is_said(
    tmp_path: Path,
) -> None:
    broken = random_weights()
    broken[:, 0] = np.nan
    driver = ModelDriver(sight_of(tmp_path / "b", weights=broken), Robot(), DRONET)
    assert driver(Simulator(HOME, 0, start=EAST)) == (0.0, 0.0)
    assert driver.reason == "steering"


@pytest.mark.slow
def test_a_model_s_drive_repeats_to_the_bit(tmp_path: Path) -> None:
    def found(name: str) -> tuple[str, bytes]:
        sight = sight_of(tmp_path / name, weights=random_weights())
        driver = ModelDriver(sight, Robot(), DRONET)
        drive = judge(Simulator(random_home(8), 8), driver, 6.0, "home")
        assert drive.turn_change_rad_s2 > 0.1  # the answers depend on the image
        return json.dumps(drive.to_json()), drive.path.tobytes()

    assert found("one") == found("two")


def test_topics_are_known_before_the_model_is_loaded(tmp_path: Path) -> None:
    sight = sight_of(tmp_path / "b", depth_m=4.0)
    names = {t.rpartition("/")[2] for t in (STEERING, COLLISION, NEAR)}
    assert names < answered_topics(tmp_path / "b")
    assert not names & answered_topics(make_tiny_bundle(tmp_path / "t"))
    assert {STEERING, COLLISION, NEAR} < set(sight.topics)


@pytest.mark.slow
def test_two_who_ask_in_one_moment_see_one_image(tmp_path: Path) -> None:
    simulator = Simulator(HOME, 0, start=EAST)
    before = simulator.image()
    ModelDriver(sight_of(tmp_path / "b"), Robot(), DRONET)(simulator)
    assert simulator.image() is before
    simulator.step()
    assert simulator.image() is not before


# --- the gate ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_gate_stops_a_driver_that_sees_nothing_before_what_depth_sees(tmp_path: Path) -> None:
    rules = find_rules("obstacle")
    simulator = Simulator(HOME, 0, start=EAST)
    for name, depth, speed in (("far", 5.0, 0.6), ("near", 0.2, 0.0)):
        gated = Gated(Straight(), sight_of(tmp_path / name, depth_m=depth), rules)
        assert gated(simulator) == (speed, 0.0)
        assert gated.reason == ("" if speed else "near")


@pytest.mark.slow
def test_gate_that_expects_a_collision_leaves_turning_free(tmp_path: Path) -> None:
    class Turning:
        def __call__(self, simulator: Simulator) -> tuple[float, float]:
            return 0.5, 0.7

        def reset(self) -> None:
            pass

    gated = Gated(Turning(), sight_of(tmp_path / "b", collision=0.9), find_rules("collision"))
    assert gated(Simulator(HOME, 0, start=EAST)) == (0.0, 0.7)
    assert gated.reason == "expected"


@pytest.mark.slow
def test_gate_knows_the_model_s_classes(tmp_path: Path) -> None:
    sight = Sight(open_pipeline(make_tiny_bundle(tmp_path / "t"), "onnx", "cpu"), Robot())
    topic = "perception/camera/classification"
    for label, speed, reason in (("red", 0.1, "slow"), ("rde", 0.0, "slow")):
        rules = parse_rules(
            f"rules: {{slow: {{kind: class, topic: {topic}, label: {label}, probability: 0, speed: 0.1}}}}"
        )
        gated = Gated(Straight(), sight, rules)
        assert gated(Simulator(HOME, 0, start=EAST)) == (pytest.approx(speed), 0.0)
        assert gated.reason == reason


def test_what_the_model_does_not_say_is_refused_by_name(tmp_path: Path) -> None:
    blind = Sight(open_pipeline(make_tiny_bundle(tmp_path / "t"), "onnx", "cpu"), Robot())
    with pytest.raises(ConfigError, match=r"tiny has no steering head.*drive record"):
        ModelDriver(blind, Robot(), DRONET)
    flat = sight_of(tmp_path / "flat")
    with pytest.raises(ConfigError, match=f"'distance' reads {NEAR}, on which the model steers"):
        ModelDriver(flat, Robot(), FREE_DISTANCE)
    with pytest.raises(ConfigError, match=r"the gate's rule 'near' reads .*obstacle_near"):
        Gated(Straight(), flat, find_rules("obstacle"))
    with pytest.raises(ConfigError, match=r"Unknown gate 'obstacel' \(did you mean 'obstacle'\?\)"):
        find_rules("obstacel")


# --- the command ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_evaluate_puts_a_model_next_to_the_expert_and_behind_gates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_steering_bundle(tmp_path / "steers", random_weights(), depth_m=4.0)
    words = ["--worlds", "1", "--metres", "3", "--image-size", "96", "72", "--engine", "onnx"]
    words += ["--model", str(model), "--driver", "expert", "straight"]
    words += ["--gate", "obstacle", "--format", "json", "--output", str(tmp_path / "out")]
    assert main(["drive", "evaluate", *words]) == 0
    found = {row["driver"]: row for row in json.loads(capsys.readouterr().out)}
    plain = ["expert", "straight", "dronet", "dronet+distance", "free_distance"]
    assert list(found) == [*plain, *(f"{name}, gate obstacle" for name in plain)]
    assert found["expert"]["speed_of_the_expert"] == 1
    assert 0 < found["dronet"]["speed_of_the_expert"] < 2
    # Nothing is nearer than 4 m by this depth: the gate changes nothing.
    assert found["straight, gate obstacle"] == {
        **found["straight"], "driver": "straight, gate obstacle"
    }  # fmt: skip
    written = json.loads((tmp_path / "out" / "driving.json").read_text())
    assert written["model"]["name"] == "steers" and len(written["model"]["sha256"]) == 64
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<svg") == 10 and "of the expert&#x27;s" in page


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "BLIND"], "tiny has no steering head"),
        (["--model", "FLAT", "--law", "free_distance"], "answers on perception/camera/steering"),
        (["--model", "FLAT", "--gate", "obstacle"], "the gate's rule 'near'"),
        (["--model", "FLAT", "--gate", "none.yaml"], "none.yaml cannot be read"),
        (["--model", "nowhere"], "nowhere"),
        (["--driver"], "--driver names nobody"),
        (["--law", "dronet"], "--law needs --model"),
        (["--gate", "obstacle"], "--gate needs --model"),
    ],
)
def test_evaluate_refuses_in_one_line_what_cannot_be_driven(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundles = {"BLIND": make_tiny_bundle(tmp_path / "t"), "FLAT": tmp_path / "flat"}
    make_steering_bundle(bundles["FLAT"])
    words = [str(bundles.get(word, word)) for word in words]
    out = tmp_path / "out"
    assert main(["drive", "evaluate", *words, "--engine", "onnx", "--output", str(out)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and said in err
    assert not out.exists()
