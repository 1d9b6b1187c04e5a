"""`bench --update`: what a running node loses while it changes over to another version."""

from __future__ import annotations

from pathlib import Path
import shutil
import tempfile
import time
from typing import Any, Dict, Sequence, Tuple

from yolojet_ros.cli.chain import wait_for
from yolojet_ros.cli.flood_camera import Senders
from yolojet_ros.cli.heard import counted, heard, percentile, print_table
from yolojet_ros.cli.model_store_node import load_model
from yolojet_ros.cli.processes import nodes

_VERSIONS = ('1.0.0', '2.0.0')
_TRIAL_SECONDS = 2.0
_MARGIN = 0.2  # s before the trial ends, when the old version is freed
_ANSWER_SECONDS = 120.0
_PHASES = ('before', 'while it changes', 'on trial', 'as the trial ends')
_COLUMNS = (
    ('', '{what}'), ('results', '{results}'), ('missing', '{missing}'),
    ('p50', '{latency_ms_p50:.1f}'),
    ('p99', '{latency_ms_p99:.1f}'), ('longest', '{latency_ms_max:.1f}'),
    ('longest gap', '{gap_ms_max:.1f}'))


def measure(
    rate: float, seconds: float, size: Tuple[int, int], detector: Dict[str, Any],
) -> Dict[str, Any]:
    """
    Have a node that is sent images change over to a second version of the same model.

    :param rate: images in a second
    :param seconds: that images are sent for; the change begins after a third of them
    :param detector: parameters of the node, with `model`, an .onnx or the engine beside it
    :return: `rows`: results, images without one, and milliseconds from stamp to result and between
        two results, before the change begins, until it is done, while the version is on trial, and
        as that ends and the old version is freed; `change_seconds`; `all_`: what was sent and the
        node's counts of it; `missing`: images without a result
    :raises UserError: if a process fails, or the version is refused.
    """
    model, detector = Path(detector['model']).with_suffix('.onnx'), dict(detector, model='')
    with tempfile.TemporaryDirectory(prefix='yolojet-bench-') as name, \
            nodes(Path(name), 'update') as running:
        store = _store(Path(name), model)
        process = running.start('detector', {
            'autostart': True, 'model_store': store.folder, 'trial_seconds': _TRIAL_SECONDS,
            **detector})
        wait_for(running, 'detector', process, 'waiting for images')
        with heard([running.namespace]) as results:
            counts = results.counts()[running.namespace]
            with Senders([f'{running.namespace}/image_raw'], *size, rate, seconds) as senders:
                senders.begin()
                time.sleep(seconds / 3)
                store.activate(_VERSIONS[1])
                begin = time.time_ns()
                load_model(f'{running.namespace}/detector', _ANSWER_SECONDS, lambda text: None)
                end = time.time_ns()
                over = end + int((_TRIAL_SECONDS - _MARGIN) * 1e9)
                sent = senders.end()[0]
            after = results.counts()[running.namespace]
            came = sorted((stamp, received) for _, stamp, _, received in results.take())
        running.check('detector', process)
    moments = (sent.first, begin, end, over, time.time_ns())
    # How many stamps are left out before each.
    missing = [round((stamp - before) * 1e-9 * rate) - 1
               for (before, _), (stamp, _) in zip(came[:1] + came, came)]
    came = [(*item, max(count, 0)) for item, count in zip(came, missing)]
    rows = [_row(what, [item for item in came if first <= item[1] < last])
            for what, first, last in zip(_PHASES, moments, moments[1:])]
    return {
        'rows': rows,
        'change_seconds': round((end - begin) * 1e-9, 2),
        'all_sent': sent.warm_up + sent.sent, 'missing': sum(row['missing'] for row in rows),
        **counted(counts, after)}


def _store(folder: Path, model: Path):
    """Return a store with two versions of a model, the first of which has proved itself."""
    from yolojet_ros.operate.model_store import ModelStore
    from yolojet_ros.operate.model_store.adding import add_bundle, working
    from yolojet_ros.operate.model_store.signing import make_bundle

    store = ModelStore.create(folder / 'store')
    engine = model.with_suffix('.engine')
    for number, version in enumerate(_VERSIONS, 1):
        bundle = make_bundle(model, version, None, folder / f'{version}.tar', sequence=number)
        with working(store):
            manifest = add_bundle(store, bundle, lambda text: None, allow_unsigned=True).manifest
        if engine.is_file():
            card = engine.with_name(engine.name + '.json')
            for source, target in zip((engine, card), manifest.engine_names):
                shutil.copy(str(source), str(store.versions / version / target))
    store.activate(_VERSIONS[0])
    store.confirm(_VERSIONS[0])
    return store


def _row(what: str, came: Sequence[Tuple[int, int, int]]) -> Dict[str, Any]:
    """:param came: stamp, when it was received, and how many are missing before it."""
    import numpy as np
    times = np.array(sorted(received for _, received, _ in came))
    latencies = [(received - stamp) * 1e-6 for stamp, received, _ in came] or [np.nan]
    gaps = np.diff(times) * 1e-6 if len(times) > 1 else [np.nan]
    return {'what': what, 'results': len(came), 'missing': sum(item[2] for item in came),
            'latency_ms_p50': percentile(latencies, 50),
            'latency_ms_p99': percentile(latencies, 99),
            'latency_ms_max': percentile(latencies, 100), 'gap_ms_max': percentile(gaps, 100)}


def print_rows(found: Dict[str, Any]) -> None:
    """Print the table, and what was lost."""
    print_table(_COLUMNS, found['rows'])
    print(f"""\
the change took {found['change_seconds']} s; {found['missing']} images have no result (goal: 0); \
of {found['all_sent']} in all, with those of the warm-up, {found['all_dropped_superseded']} were \
superseded and {found['all_lost_in_middleware']} lost in the middleware""")
