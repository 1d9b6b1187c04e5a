"""The doctor's own images: a plain camera driver sends some to a node of ours, and we count."""

from __future__ import annotations

import os
from pathlib import Path
import sys
import tempfile
from typing import List

from yolojet_ros.cli.interrupts import Interrupts
from yolojet_ros.core.errors import UserError
from yolojet_ros.operate.doctor.probes.tell import step, tell

_COUNT, _RATE = 20, 30.0


def command() -> List[str]:
    """Return the command line that sends images and tells of them as the doctor's probes do."""
    return [sys.executable, '-m', __name__]


def main() -> None:
    """Send images, best effort and reliable, with the variables of this shell on both sides."""
    with Interrupts():
        try:
            _send()
        except KeyboardInterrupt:
            sys.exit(1)
        except UserError as error:
            tell(error=str(error))
        tell(ended=True)


def _send() -> None:
    from yolojet_ros.cli.bench_transport import Case, measure
    rows = []
    for qos in ('best_effort', 'reliable'):
        step(f'send {qos} images')
        with tempfile.TemporaryDirectory(prefix='yolojet-doctor-') as folder:
            (row,) = measure(Path(folder), Case(1280, 720, _RATE, qos), _COUNT, os.environ)
        rows.append({'qos': qos, 'sent': _COUNT, 'received': row['received'],
                     'p50': row['age_ms_p50'], 'p99': row['age_ms_p99']})
        tell(rows=rows)


if __name__ == '__main__':
    main()
