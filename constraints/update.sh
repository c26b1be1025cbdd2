#!/usr/bin/env bash
# Resolve the newest versions that fit together and write them to this folder.
#
#   constraints/update.sh             # needs uv; nothing else in the project does
#
# One resolution for each Python and each ROS 2 distribution, so that every combination is known to resolve:
# py3.X.txt holds what is not ROS and serves both distributions, ros-DISTRO.txt holds the ROS wheels and
# serves every Python. Run the tests with each Python afterwards and correct the table in CONTRIBUTING.md.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# What make installs beside the package with its extras. colcon builds ament_python packages with commands of
# setup.py that setuptools 80 took out.
printf '%s\n' pip cmake ninja 'setuptools<80' wheel >"$work/tools.in"

for python in 3.10 3.11 3.12 3.13 3.14; do
    fixed=()
    for distro in kilted jazzy; do
        echo "Python $python, $distro ..." >&2
        uv pip compile --quiet --no-header --no-annotate --python-version "$python" \
            --python-platform x86_64-manylinux_2_28 --upgrade \
            --extra openvino --extra timm --extra places --extra parquet --extra view --extra ray --extra wandb --extra dev --extra fuzz \
            "${fixed[@]}" ../setup.py "ros-$distro.in" "$work/tools.in" -o "$work/$python-$distro.txt"
        grep '^ros-' "$work/$python-$distro.txt" >"$work/$python-$distro.ros"
        grep -v '^ros-' "$work/$python-$distro.txt" >"$work/$python-$distro.other"
        # The second distribution has to live with the first one's versions of all else.
        fixed=(--constraint "$work/$python-$distro.other")
        cmp "$work/3.10-$distro.ros" "$work/$python-$distro.ros"
    done
    sort -u "$work/$python-kilted.other" "$work/$python-jazzy.other" >"$work/pins"
    {
        echo "# Versions of everything but ROS 2 for Python $python; what was run with them stands in CONTRIBUTING.md."
        echo "# Written by update.sh."
        cat "$work/pins"
    } >"py$python.txt"
done
for distro in kilted jazzy; do
    {
        echo "# Versions of the ROS 2 wheels, $distro, for every Python; what was run with them stands in CONTRIBUTING.md."
        echo "# Written by update.sh."
        cat "$work/3.10-$distro.ros"
    } >"ros-$distro.txt"
done
