"""Run one probe: `python -m yolojet_ros.operate.doctor.probes NAME [ARGUMENTS]`."""

from __future__ import annotations

import importlib
import sys

from yolojet_ros.operate.doctor.probes.tell import tell

# The module beside this one that each is a function of.
_MODULES = {
    'folders': 'python', 'modules': 'python', 'onnxruntime': 'python', 'cuda': 'cuda',
    'libraries': 'cuda', 'tensorrt': 'tensorrt', 'pycuda': 'pycuda', 'rclpy': 'ros',
    'graph': 'graph',
}


def main() -> None:
    """Run the probe that the first argument names, and tell that it came to its end."""
    name, *arguments = sys.argv[1:]
    module = importlib.import_module(f'yolojet_ros.operate.doctor.probes.{_MODULES[name]}')
    getattr(module, name)(*arguments)
    tell(ended=True)


if __name__ == '__main__':
    main()
