"""`python -m robot_vision.cli`, for where the script is not on the path."""

import sys

from robot_vision.cli import main

sys.exit(main())
