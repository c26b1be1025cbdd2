"""What the tests of the demo share."""

import numpy as np
from scipy.spatial.transform import Rotation

from robot_vision.demo.recorded import DriveTruth


def truth_of(count: int) -> DriveTruth:
    angles = np.linspace(0, 2, count)
    return DriveTruth(
        np.arange(count) * 100_000_000,
        np.stack([np.arange(count) * 0.5, np.zeros(count), np.ones(count)], 1),
        Rotation.from_rotvec(angles[:, None] * [[0, 0, 1]]).as_quat(),
        tuple("ab"[i % 2] for i in range(count)),
    )


def map_fewer(every: int) -> str:
    """Returns code after which a demo of its process maps one view of `every`: they take most of its time."""
    return (
        "from robot_vision.cli import demo, main\nfrom robot_vision.simulation.drive import mapping_drive\n"
        f"demo.mapping_drive = lambda world: mapping_drive(world)[::{every}]\n"
    )
