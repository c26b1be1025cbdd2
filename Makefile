# robot_vision: `make demo` shows it, `make test` checks it. Run `make help` for the rest.
#
# Everything goes into one virtual environment, VENV. Each step leaves a stamp that is named after the hash
# of what it depends on, so that an edit of a requirement repeats the step, a second run is quick, and a
# step that was interrupted, which leaves no stamp, is done again. A step first removes its older stamps: an
# edit that is taken back repeats it too.

PYTHON ?= python3
ROS_DISTRO ?= kilted
VENV ?= .venv
DEMO_ARGS ?=
DRIVE_ARGS ?=
TEST_ARGS ?=
BENCH_ARGS ?=
FUZZ_ARGS ?=
SOAK_ARGS ?=
# How many processes run the tests. All of them take a quarter less in 3 on two cores, but some are then late.
TEST_JOBS ?= 2

# The tests start hundreds of processes, each of which would compile the package again.
unexport PYTHONDONTWRITEBYTECODE

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

# make divides its lists of files at spaces.
ifneq ($(words $(CURDIR) $(VENV)),2)
$(error '$(CURDIR)' with VENV='$(VENV)': neither name may have a space in it, nor be empty)
endif

# The interpreter behind PYTHON: in an activated environment that is not the environment's own link, which is
# gone while the environment is made again.
base_python := $(shell $(PYTHON) -c 'import sys; print(sys._base_executable)' 2>/dev/null)
py_version := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
venv := $(abspath $(VENV))
python := $(venv)/bin/python

# A ROS 2 that is sourced and that the interpreter can import is used as it is; otherwise its wheels are
# installed. (An environment of this project also sets AMENT_PREFIX_PATH, but only for its own Python.)
ros_on_system := $(shell [ -n "$${AMENT_PREFIX_PATH:-}" ] && \
	$(base_python) -c 'import rclpy, tf2_msgs.msg, vision_msgs.msg' 2>/dev/null && echo yes)
ifeq ($(ros_on_system),yes)
ros := system
venv_flags := --system-site-packages
else
ros := $(ROS_DISTRO)
ros_files := constraints/ros-$(ROS_DISTRO).in constraints/ros-$(ROS_DISTRO).txt
ros_flags := -r $(word 1,$(ros_files)) -c $(word 2,$(ros_files))
endif

constraints := constraints/py$(py_version).txt
hash = $(shell cat $(1) 2>/dev/null | cksum | cut -d ' ' -f 1)
ros_env_files := $(sort $(shell find tools/ros_env -type f -not -path '*/__pycache__/*'))
stamps := $(venv)/.stamps
venv_stamp := $(stamps)/venv-py$(py_version)-$(ros)
runtime_stamp := $(stamps)/runtime-$(call hash,setup.py setup.cfg $(constraints) $(ros_files))
interfaces_stamp := $(stamps)/interfaces-$(call hash,$(ros_files) $(ros_env_files))
dev_stamp := $(stamps)/dev-$(call hash,setup.py $(constraints) $(ros_files))
links_stamp := $(stamps)/links-$(shell ls launch | cat - tools/ros_env/link_package.py setup.py | cksum | cut -d ' ' -f 1)
ready := $(runtime_stamp) $(interfaces_stamp) $(links_stamp)

# What is half removed has another name, so that nobody takes it for whole.
require_own_venv = [ ! -e $(venv) ] || [ -d $(stamps) ] || { echo "error: $(VENV) is there and was not made by \
	make. Remove it, or name another: make VENV=.venv-make" >&2; exit 1; }
remove_venv = rm -rf $(venv).removed; { [ ! -e $(venv) ] && [ ! -L $(venv) ]; } || mv -T $(venv) $(venv).removed; \
	rm -rf $(venv).removed

# Of two makes at once in a checkout the second waits until the first has made the environment.
make_stamps = flock -n -E 75 Makefile $(MAKE) --no-print-directory -s $(1) || { [ $$? = 75 ] && \
	echo "==> another make is making the environment: waiting for it" && \
	flock Makefile $(MAKE) --no-print-directory -s $(1); }

# torch alone, then the rest: pip keeps what it downloads until it has installed all of one call, and in one
# call that is 3 GB more. (It downloads into TMPDIR.)
warn_of_small_disk = for folder in $(venv) "$${TMPDIR:-/tmp}"; do \
	free=$$(df -k --output=avail "$$folder" | tail -n 1); [ "$$free" -gt 9000000 ] || \
	echo "warning: $$((free / 1000000)) GB are free on the disk of $$folder: up to 9 may be needed" >&2; done

pip := $(python) -m pip --disable-pip-version-check install --no-input $(if $(VERBOSE),,-qq) -c $(constraints)

.PHONY: help
help: ## show this list
	@echo "make TARGET [PYTHON=$(PYTHON)] [ROS_DISTRO=$(ROS_DISTRO)] [VENV=$(VENV)]"
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14
	@echo "ROS_DISTRO: kilted or jazzy. Further: DEMO_ARGS, DRIVE_ARGS, TEST_ARGS, TEST_JOBS, BENCH_ARGS, SOAK_ARGS, FUZZ_ARGS,"
	@echo "VERBOSE=1."

.PHONY: demo
demo: ready ## set up without torch and watch the node work on a camera stream
	@$(venv)/bin/robot-vision demo $(DEMO_ARGS)

.PHONY: drive
drive: ready ## watch a robot drive itself through a home by its camera
	@$(venv)/bin/robot-vision drive live $(DRIVE_ARGS)

.PHONY: test
test: dev-ready ## run every test
	@$(python) -m pytest -n $(TEST_JOBS) --dist worksteal $(TEST_ARGS)

.PHONY: test-fast
test-fast: dev-ready ## run the quick tests: a minute and a half on two cores
	@$(python) -m pytest -n $(TEST_JOBS) --dist worksteal -m "not slow" $(TEST_ARGS)

.PHONY: test-core
test-core: dev-ready ## run what of test-fast needs neither ROS nor torch: under a minute
	@TEST_WITHOUT="rclpy torch" $(python) -m pytest -n $(TEST_JOBS) --dist worksteal -m "not slow" $(TEST_ARGS)

.PHONY: bench
bench: dev-ready ## measure speed; see docs/benchmarks.md
	@$(python) -m benchmarks $(BENCH_ARGS)

.PHONY: bench-check
bench-check: dev-ready ## measure in turns with BASE=COMMIT; fails where this tree is slower
	@$(python) -m benchmarks.check $(BENCH_ARGS) -- $(or $(BASE),$(error name a commit: make bench-check BASE=main))

.PHONY: soak
soak: dev-ready ## an hour at full rate, then every fault: 75 to 80 minutes; see docs/reliability_faults.md
	@PYTHONPATH=.:test/support $(python) test/reliability/soak.py $(SOAK_ARGS)

.PHONY: fuzz
fuzz: dev-ready ## fuzz every reader of untrusted data; see docs/reliability.md
	@$(python) -c 'import atheris' 2>/dev/null || $(pip) atheris
	@nice -n 19 $(python) -m fuzz $(FUZZ_ARGS)
	@$(python) -m fuzz --render

.PHONY: audit
audit: check-arguments ## ask for known vulnerabilities of the pinned versions; needs the internet
	+@$(call make_stamps,$(venv_stamp))
	@$(python) tools/audit.py --venv $(venv)/audit

.PHONY: docs
docs: dev-ready ## build docs/_build/html from docs/; warnings are errors
	@$(python) -m sphinx -q -W --keep-going -E -b html docs docs/_build/html

.PHONY: lint
lint: dev-ready ## ruff and mypy
	@$(python) -m ruff check .
	@$(python) -m ruff format --check .
	@$(python) -m mypy

.PHONY: setup
setup: dev-ready ## only make the environment that test, bench and lint use

.PHONY: clean
clean: ## remove the environment and everything built or cached
	@$(require_own_venv)
	@$(remove_venv)
	rm -rf build dist install log robot_vision.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

.PHONY: ready dev-ready
ready: check-arguments
	+@$(call make_stamps,$(ready))
dev-ready: check-arguments
	+@$(call make_stamps,$(ready) $(dev_stamp))

.PHONY: check-arguments
check-arguments:
	@[ -n "$(py_version)" ] || { echo "error: no Python: $(PYTHON) does not run." \
		"Install Python 3.10 or newer, or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@[ -f "$(constraints)" ] || { echo "error: Python $(py_version) ($(PYTHON)) is not among those" \
		"supported: $(patsubst constraints/py%.txt,%,$(sort $(wildcard constraints/py*.txt)))." \
		"Name another: make PYTHON=python3.12" >&2; exit 1; }
	@[ -f "constraints/ros-$(ROS_DISTRO).in" ] || [ "$(ros_on_system)" = yes ] || { \
		echo "error: ROS_DISTRO=$(ROS_DISTRO) has no wheels here; use one of" \
		"$(patsubst constraints/ros-%.in,%,$(sort $(wildcard constraints/ros-*.in)))." >&2; exit 1; }

$(venv_stamp): | check-arguments
	@echo "==> virtual environment $(VENV) with Python $(py_version) (seconds)"
	@$(base_python) -c 'import ensurepip, venv' 2>/dev/null || { echo "error: $(PYTHON) cannot make virtual" \
		"environments. Debian, Ubuntu: apt install python$(py_version)-venv" >&2; exit 1; }
	@$(require_own_venv)
	@$(remove_venv)
	@mkdir -p $(stamps)
	@touch $(venv)/COLCON_IGNORE
	@$(base_python) -m venv $(venv_flags) $(venv)
	@touch $@

$(runtime_stamp): $(venv_stamp) | check-arguments
ifeq ($(ros),system)
	@echo "==> the package and what it runs on, on top of the ROS 2 that is sourced (under a minute)"
else
	@echo "==> the package, what it runs on, and ROS 2 $(ROS_DISTRO) from wheels (600 MB on disk, 1 to 5 minutes)"
endif
	@rm -f $(stamps)/runtime-*
	@$(pip) pip setuptools wheel
	@$(pip) $(ros_flags) --no-build-isolation -e '.[places]'
	@touch $@

$(interfaces_stamp): | $(runtime_stamp)
	@rm -f $(stamps)/interfaces-*
ifeq ($(ros),system)
	@$(python) tools/ros_env/build.py --hook-only
else
	@echo "==> vision_msgs, tf2_msgs and bond, of which there are no wheels (compiles for about a minute)"
	@command -v cmake >/dev/null || $(pip) cmake
	@$(python) tools/ros_env/build.py
endif
	@touch $@

# ROS finds the package by name through links, one a launch file and one an executable.
$(links_stamp): $(interfaces_stamp)
	@rm -f $(stamps)/links-*
	@$(python) tools/ros_env/link_package.py
	@touch $@

# What is not compiled here is when it is first imported, which most modules never are.
$(dev_stamp): $(runtime_stamp) | $(interfaces_stamp)
	@echo "==> torch and everything else that tests, training and benchmarks need (8 GB on disk, 2 to 15 minutes)"
	@rm -f $(stamps)/dev-*
	@$(warn_of_small_disk)
	@$(pip) --no-compile torch torchvision
	@$(pip) --no-compile $(addprefix -c ,$(word 2,$(ros_files))) --no-build-isolation -e '.[openvino,timm,places,parquet,ray,dev]'
	@touch $@
