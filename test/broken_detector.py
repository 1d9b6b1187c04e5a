"""The detector with one thing broken, as no model or message breaks it; the rest is real."""

import os
import sys
import time

from yolojet_ros.nodes import detector_node, model_change
from yolojet_ros.nodes.detector_node import DetectorNode


def _hang_when_set(original):
    """Let the executor hang where the operator sets score_threshold."""
    def on_set(node, changes):
        if changes[0].name == 'score_threshold':
            time.sleep(1000)
        return original(node, changes)
    return on_set


def _lose_results(original):
    """Let all results but the first few get lost on their way out."""
    published = []

    def publish(node, frame):
        if len(published) < 3:
            published.append(original(node, frame))
    return publish


def main():
    """Run the detector; BROKEN says what is broken."""
    broken = os.environ['BROKEN']
    if broken == 'executor':
        DetectorNode._on_set_parameters = _hang_when_set(DetectorNode._on_set_parameters)
    elif broken == 'results':
        DetectorNode._publish = _lose_results(DetectorNode._publish)
    elif broken == 'impatient':
        model_change._RESULT_SECONDS = 1.0
    sys.exit(detector_node.main())


if __name__ == '__main__':
    main()
