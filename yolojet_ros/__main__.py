"""Run the command line: `python -m yolojet_ros`."""

from yolojet_ros.nodes.start import start

start('cli.main', interrupted=130)
