"""Run the command line: `python -m yolojet_ros`."""

import sys

from yolojet_ros.cli.main import main

sys.exit(main())
