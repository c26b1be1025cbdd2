"""What is done to the running perception node, and what must hold afterwards.

Each scenario takes a healthy rig, does harm for some seconds and returns what was lost. That the node answers
good frames again afterwards, is the same process, and had no internal error is checked for all of them.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from fault_disk import log_disk_full
from fault_rig import NODE, Camera, Rig, kill
from fault_steady import steady
from ros_helpers import wait_until

CONFIGURE, CLEANUP, ACTIVATE, DEACTIVATE, SHUTDOWN = 1, 2, 3, 4, 5
LEGAL = {
    "unconfigured": {CONFIGURE: "inactive"},
    "inactive": {ACTIVATE: "active", CLEANUP: "unconfigured"},
    "active": {DEACTIVATE: "inactive"},
}
REPLACED = ("killed", "network_cut", "log_disk_full")  # these start the node anew
FULL_S = 30.0  # a run of so long is not cut short before its 1,000 transitions are done
Lost = dict[str, Any]


def camera_dies(rig: Rig, seconds: float) -> Lost:
    """The camera's process is killed in mid-stream and started again, over and over."""
    end, deaths, longest = time.monotonic() + seconds, 0, 0.0
    while time.monotonic() < end:
        longest = max(longest, rig.heal())
        rig.camera.signal(signal.SIGKILL)
        rig.camera.process.wait()
        deaths += 1
    return {"deaths": deaths, "longest_recovery_s": round(longest, 2)}


def camera_stalls(rig: Rig, seconds: float) -> Lost:
    """The camera hangs (SIGSTOP) and goes on."""
    rig.heal()
    rig.camera.signal(signal.SIGSTOP)
    time.sleep(seconds)
    quiet = rig.answers
    rig.camera.signal(signal.SIGCONT)
    return {"answered_meanwhile": rig.answers - quiet, "recovery_s": round(rig.heal(), 2)}


def flood(rig: Rig, seconds: float) -> Lost:
    """Frames at ten times the rate that the network can do: the newest are answered, memory stays."""
    rig.heal()
    before, counted = rig.resources(), rig.counters()
    sent = rig.camera.tell(rate=2000)
    rig.take_ages()
    time.sleep(seconds)
    sent = rig.camera.tell(rate=20) - sent
    ages = sorted(rig.take_ages())
    growth = rig.resources()["memory_mib"] - before["memory_mib"]
    assert ages, "nothing was answered"
    assert growth < 128, f"memory grew by {growth:.0f} MiB"
    replaced = rig.counters().get("replaced", 0) - counted.get("replaced", 0)
    return {
        "sent": sent,
        "answered": len(ages),
        "replaced": int(replaced),
        "age_p50_ms": round(1e3 * ages[len(ages) // 2], 1),
        "memory_growth_mib": round(growth, 1),
    }


def other_sizes(rig: Rig, seconds: float) -> Lost:
    """Every frame has another size and encoding, some unknown, some of one pixel."""
    rig.heal()
    before = rig.counters()
    rig.camera.tell(rate=30, vary=True)
    answers = rig.answers
    time.sleep(seconds)
    answered = rig.answers - answers
    rig.heal()
    after = rig.counters()
    refused = {k: int(after[k] - before.get(k, 0)) for k in after if k.startswith("refused_")}
    assert answered, "no frame of another size was answered"
    assert refused.get("refused_encoding"), "the unknown encoding was not counted"
    return {"answered": answered, **{k: v for k, v in refused.items() if v}}


def other_times(rig: Rig, seconds: float) -> Lost:
    """Stamps from the future, from the past and jumping between them."""
    rig.heal()
    before = rig.counters()
    answers = rig.answers
    for offset in (3600, -3600, 1e-3, -86400, 0, 30):
        rig.camera.tell(rate=30, offset_s=offset)
        time.sleep(seconds / 6)
    answered = rig.answers - answers
    rig.heal()
    after = rig.counters()
    counted = {k: int(after[k] - before.get(k, 0)) for k in ("stamps_back", "stamps_ahead")}
    assert answered, "no frame with another stamp was answered"
    assert counted["stamps_back"] and counted["stamps_ahead"], counted
    return {"answered": answered, **counted}


def transitions(rig: Rig, seconds: float) -> Lost:
    """Legal and illegal transitions in random order while frames arrive; 1,000 from 30 s on."""
    from lifecycle_msgs.srv import ChangeState

    rig.heal()
    choose, end = random.Random(0), time.monotonic() + seconds
    state, done, refused, number = "active", 0, 0, 0
    while number < 1000 and (seconds >= FULL_S or time.monotonic() < end):
        number += 1
        wanted = choose.choice([CONFIGURE, CLEANUP, ACTIVATE, DEACTIVATE])
        request = ChangeState.Request()
        request.transition.id = wanted
        success = rig.client.call(ChangeState, f"{NODE}/change_state", request, 60).success
        legal = wanted in LEGAL[state]
        assert success == legal, f"transition {wanted} from {state}: {success}"
        state = LEGAL[state].get(wanted, state)
        done, refused = done + legal, refused + (not legal)
    assert rig.client.state(NODE) == state
    for wanted in {"unconfigured": (CONFIGURE, ACTIVATE), "inactive": (ACTIVATE,)}.get(state, ()):
        assert rig.client.change_state(NODE, wanted)
    return {"legal": done, "illegal_refused": refused}


def parameters(rig: Rig, seconds: float) -> Lost:
    """Parameters are set at random, in and out of range, of right and wrong type, while it runs."""
    rig.heal()
    choose, end = random.Random(1), time.monotonic() + seconds
    values = {
        "top_k": [1, 5, 0, -3, 10**6, "many"],
        "max_rate_hz": [0.0, 5.0, -1.0, 1e9, "fast"],
        "always_infer": [True, False, 3],
        "unknown_threshold": [0.5, float("nan"), float("-inf"), -5.0],
        "model": ["/nowhere", ""],
        "no_such_parameter": [1],
        "warn_period_s": [0.1, 5.0, -1.0],
        "stale_after_s": [1.0, 0.0, -2.0],
    }
    taken = refused = 0
    while time.monotonic() < end:
        name = choose.choice(list(values))
        if rig.client.set_parameters(NODE, **{name: choose.choice(values[name])}).successful:
            taken += 1
        else:
            refused += 1
    defaults = {"top_k": 5, "max_rate_hz": 0.0, "always_infer": False,
                "unknown_threshold": float("nan"), "warn_period_s": 5.0, "stale_after_s": 2.0}  # fmt: skip
    for name, value in defaults.items():
        assert rig.client.set_parameters(NODE, **{name: value}).successful, name
    assert taken and refused
    return {"taken": taken, "refused": refused}


def killed(rig: Rig, seconds: float) -> Lost:
    """The node itself is killed (SIGKILL) and started again: no leftover keeps it from starting."""
    end, kills, longest = time.monotonic() + seconds, 0, 0.0
    while time.monotonic() < end or not kills:
        rig.heal()
        kill(rig.node)
        kills += 1
        started = time.monotonic()
        rig.node = rig.start()
        rig.heal(120)
        longest = max(longest, time.monotonic() - started)
    return {"kills": kills, "longest_recovery_s": round(longest, 2)}


def starved(rig: Rig, seconds: float) -> Lost:
    """Four busy processes a core take the CPU; afterwards the latency is what it was."""
    rig.heal()
    burn = "while True: pass"
    count = 4 * len(os.sched_getaffinity(0))
    hogs = [subprocess.Popen([sys.executable, "-c", burn]) for _ in range(count)]
    try:
        rig.take_ages()
        time.sleep(seconds)
        ages = sorted(rig.take_ages())
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    recovery = rig.heal()
    worst = round(1e3 * ages[-1], 1) if ages else None
    return {"answered": len(ages), "oldest_ms": worst, "recovery_s": round(recovery, 2)}


def may_make_networks() -> bool:
    """Whether this user can make network namespaces (root, outside most containers)."""
    if shutil.which("ip") is None:
        return False
    made = subprocess.run(["ip", "netns", "add", "rv_try"], capture_output=True, check=False)
    subprocess.run(["ip", "netns", "del", "rv_try"], capture_output=True, check=False)
    return made.returncode == 0


def network_cut(rig: Rig, seconds: float) -> Lost:
    """A camera on another network stack (UDP over a virtual cable) is cut off and joined again."""
    cable = [
        "ip netns add rv_camera",
        "ip link add rv_robot type veth peer name rv_eye netns rv_camera",
        "ip addr add 10.213.0.1/24 dev rv_robot",
        "ip link set rv_robot up multicast on",
        "ip netns exec rv_camera ip addr add 10.213.0.2/24 dev rv_eye",
        "ip netns exec rv_camera ip link set rv_eye up multicast on",
        "ip netns exec rv_camera ip link set lo up",
        "ip netns exec rv_camera ip route add default via 10.213.0.1",
    ]
    rig.heal()  # a node that still starts may have inherited that SIGINT is ignored
    rig.camera.close()
    kept = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE")
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "SUBNET"
    try:
        for line in cable:
            subprocess.run(line.split(), check=True)
        # Fast DDS looks for network interfaces when a participant is made.
        rig.node.stop()
        rig.node = rig.start()
        rig.camera = Camera("rv_camera")
        rig.camera.tell(rate=10, size=[120, 160])
        rig.answered(120)
        subprocess.run("ip link set rv_robot down".split(), check=True)
        time.sleep(0.5)
        before = rig.answers
        time.sleep(seconds)
        meanwhile = rig.answers - before
        subprocess.run("ip link set rv_robot up".split(), check=True)
        joined = rig.answered(120)
    finally:
        rig.camera.close()
        for line in ("ip link del rv_robot", "ip netns del rv_camera"):
            subprocess.run(line.split(), check=False, capture_output=True)
        if kept is None:
            os.environ.pop("ROS_AUTOMATIC_DISCOVERY_RANGE")
        else:
            os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = kept
    assert meanwhile == 0, f"{meanwhile} answers came through a cut cable"
    return {"cut_s": seconds, "answers_after_s": round(joined, 2)}


def wrong_model(rig: Rig, seconds: float) -> Lost:
    """The bundle's files vanish while it runs; it goes on, and says so when it is configured again."""
    rig.heal()
    moved = rig.bundle.with_name(rig.bundle.name + "_gone")
    rig.bundle.rename(moved)
    try:
        rig.heal()
        assert rig.client.change_state(NODE, DEACTIVATE)
        assert rig.client.change_state(NODE, CLEANUP)
        assert not rig.client.change_state(NODE, CONFIGURE)
        assert str(rig.bundle) in rig.node.output
    finally:
        moved.rename(rig.bundle)
    wait_until(lambda: rig.client.state(NODE) == "unconfigured", 20)
    assert rig.client.change_state(NODE, CONFIGURE)
    assert rig.client.change_state(NODE, ACTIVATE)
    return {"state_without_model": "unconfigured"}


SCENARIOS: dict[str, Callable[[Rig, float], Lost]] = {
    f.__name__: f
    for f in (
        steady, camera_dies, camera_stalls, flood, other_sizes, other_times, transitions, parameters,
        wrong_model, log_disk_full, starved, network_cut, killed,
    )
}  # fmt: skip


def suffer(name: str, rig: Rig, seconds: float) -> Lost:
    """Runs one scenario and checks that the node is well afterwards."""
    process = rig.node.process.pid
    lost = SCENARIOS[name](rig, seconds)
    lost["healed_s"] = round(rig.heal(), 2)
    assert name in REPLACED or rig.node.process.pid == process, "the node was replaced"
    time.sleep(0.5)  # the next diagnostics
    assert rig.counters().get("internal_errors", 0) == 0, rig.node.output[-3000:]
    assert "Traceback" not in rig.node.output, rig.node.output[-3000:]
    return lost
