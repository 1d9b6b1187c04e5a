"""
Find the range of each activation for INT8, from images that went through the letterbox.

MinMax keeps the largest value; Percentile cuts a small share of the values off; Entropy
chooses the cut that loses least information (S. Migacz, 8-bit Inference with TensorRT,
GTC 2017). Histograms are kept per tensor, never the activations themselves.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Callable, Dict, Optional, Sequence, TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.files import atomic_path

if TYPE_CHECKING:
    import onnx

METHODS = ('minmax', 'entropy', 'percentile')
PERCENTILE = 99.99
_BINS = 2048
_LEVELS = 128


class MagnitudeHistogram:
    """Counts of |x| over equal bins from 0; the range doubles when a value exceeds it."""

    def __init__(self) -> None:
        """Start without a value."""
        self.counts = np.zeros(_BINS, np.int64)
        self.limit = 0.0
        self.peak = 0.0

    def add(self, values: np.ndarray) -> None:
        """Count float values of any shape."""
        magnitudes = np.abs(values, dtype=np.float32).ravel()
        peak = float(magnitudes.max(initial=0.0))
        if not np.isfinite(peak):
            raise UserError(
                'the model gives infinite or undefined values on the calibration images; '
                'check that it works before quantization')
        self.peak = max(self.peak, peak)
        if self.limit == 0.0:
            self.limit = peak
        if self.limit == 0.0:
            return
        while peak > self.limit:
            self.counts = np.concatenate((
                self.counts.reshape(-1, 2).sum(1), np.zeros(_BINS // 2, np.int64)))
            self.limit *= 2
        magnitudes *= _BINS / self.limit
        places = np.minimum(magnitudes.astype(np.int32), _BINS - 1)
        self.counts += np.bincount(places, minlength=_BINS)

    def threshold(self, method: str) -> float:
        """Return the magnitude that becomes 127; 1 for a tensor that is always zero."""
        if self.peak == 0.0:
            return 1.0
        if method == 'minmax':
            return self.peak
        width = self.limit / _BINS
        if method == 'percentile':
            share = np.cumsum(self.counts) / self.counts.sum()
            cut = (int(np.searchsorted(share, PERCENTILE / 100)) + 1) * width
        else:
            cut = entropy_cut(self.counts) * width
        return min(cut, self.peak)


def entropy_cut(counts: np.ndarray) -> int:
    """Return the number of bins, 128 or more, whose 128 levels lose least information."""
    best, best_loss = len(counts), np.inf
    total = counts.sum()
    for cut in range(_LEVELS, len(counts) + 1, 8):
        kept = counts[:cut].astype(np.float64)
        reference = kept.copy()
        reference[-1] += total - kept.sum()
        # Each level spreads its count evenly over those of its bins that are not empty.
        level = np.arange(cut) * _LEVELS // cut
        filled = kept > 0
        per_level = np.bincount(level, kept, _LEVELS)
        bins_per_level = np.bincount(level, filled, _LEVELS)
        quantized = np.where(filled, per_level[level] / np.maximum(bins_per_level[level], 1), 0)
        loss = _divergence(reference, quantized)
        if loss < best_loss:
            best, best_loss = cut, loss
    return best


def _divergence(p: np.ndarray, q: np.ndarray) -> float:
    """Return the Kullback-Leibler divergence of two histograms; empty bins count as 1e-9."""
    p, q = p / p.sum(), q / q.sum()
    used = p > 0
    return float(np.sum(p[used] * np.log(p[used] / np.maximum(q[used], 1e-9))))


def calibrate(
    model: onnx.ModelProto, tensors: Sequence[str], inputs: Sequence[np.ndarray], method: str,
    cache: Optional[Path] = None,
) -> Dict[str, float]:
    """
    Return the threshold of each tensor.

    :param tensors: names of float activations (or of the graph's input).
    :param inputs: network inputs float32[1, 3, h, w].
    :param method: one of METHODS.
    :param cache: folder for results, keyed by model, data and method; None keeps none.
    """
    if method not in METHODS:
        raise UserError(f'no calibration method {method!r}; choose one of {", ".join(METHODS)}')
    file = cache / f'{_key(model, tensors, inputs, method)}.json' if cache else None
    known = _cached(file, tensors) if file else None
    if known is not None:
        return known
    histograms = {name: MagnitudeHistogram() for name in tensors}
    run = activations(model, tensors)
    for tensor in tqdm(inputs, 'calibrate', unit='image'):
        for name, values in run(tensor).items():
            histograms[name].add(values)
    thresholds = {name: h.threshold(method) for name, h in histograms.items()}
    if file:
        with atomic_path(file) as temporary:
            temporary.write_text(json.dumps(thresholds), encoding='utf-8')
    return thresholds


def _cached(file: Path, tensors: Sequence[str]) -> Optional[Dict[str, float]]:
    """Return the thresholds of a cache file; None if there is none that is whole."""
    try:
        thresholds = json.loads(file.read_text(encoding='utf-8'))
        if set(thresholds) == set(tensors):
            return {name: float(value) for name, value in thresholds.items()}
    except (OSError, ValueError, TypeError, RecursionError):
        pass
    return None


def activations(
    model: onnx.ModelProto, tensors: Sequence[str],
) -> Callable[[np.ndarray], Dict[str, np.ndarray]]:
    """Return a function that runs the model and gives the named tensors of one input."""
    import onnx
    import onnxruntime

    source = model.graph.input[0].name
    watched = [name for name in tensors if name != source]
    if not watched:
        return lambda tensor: {name: tensor for name in tensors}
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in watched)
    session = onnxruntime.InferenceSession(
        probe.SerializeToString(), providers=['CPUExecutionProvider'])

    def run(tensor: np.ndarray) -> Dict[str, np.ndarray]:
        values = dict(zip(watched, session.run(watched, {source: tensor})))
        if source in tensors:
            values[source] = tensor
        return values

    return run


def default_cache() -> Path:
    """Return the folder for calibration results of this user."""
    base = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(base) / 'yolojet_ros' / 'calibration'


def _key(
    model: onnx.ModelProto, tensors: Sequence[str], inputs: Sequence[np.ndarray], method: str,
) -> str:
    digest = hashlib.sha256(model.graph.SerializeToString(deterministic=True))
    digest.update(repr((sorted(tensors), method, PERCENTILE)).encode())
    for tensor in inputs:
        digest.update(np.ascontiguousarray(tensor))
    return digest.hexdigest()[:32]
