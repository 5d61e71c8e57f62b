"""`python -m rushlight_launch` is the command `rushlight`."""

import sys

from rushlight_launch.cli import main

sys.exit(main())
