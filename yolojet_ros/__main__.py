"""Run the command line: `python -m yolojet_ros`, and `yolojet` where pip has installed it."""

from yolojet_ros.nodes.start import start


def main() -> None:
    """Run a command and exit."""
    start('cli.main', interrupted=130)


if __name__ == '__main__':
    main()
