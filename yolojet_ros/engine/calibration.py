"""Calibration by TensorRT itself for INT8 without Q/DQ, until TensorRT 10."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import List, Optional, Sequence

import numpy as np

from yolojet_ros.core.files import atomic_path
from yolojet_ros.inference.cuda.device import Device

# The method, and the class of TensorRT that does it.
CALIBRATORS = {'entropy': 'IInt8EntropyCalibrator2', 'minmax': 'IInt8MinMaxCalibrator'}


def data_hash(tensors: Sequence[np.ndarray]) -> str:
    """Return the SHA-256 of calibration images, so that a cache of others is not reused."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(np.ascontiguousarray(tensor))
    return digest.hexdigest()


def cache_path(engine: str, model: str, data: str, method: str) -> Path:
    """Return where the calibration cache lies: beside the engine, named by all it depends on."""
    path = Path(engine)
    return path.with_name(f'{path.stem}.{model[:8]}-{data[:8]}-{method}.calibration')


def make_calibrator(
    trt, device: Device, tensors: Sequence[np.ndarray], batch: int, cache: Path,
    method: str = 'entropy',
):
    """
    Return a trt.IInt8Calibrator over letterboxed images.

    :param device: current
    :param tensors: float32[1, 3, H, W], at least `batch` of them
    :param cache: file that keeps TensorRT's ranges between builds
    :param method: a key of CALIBRATORS
    """
    base = getattr(trt, CALIBRATORS[method])

    class Calibrator(base):
        def __init__(self) -> None:
            base.__init__(self)
            self._next = 0
            self._memory = device.allocate(batch * tensors[0].nbytes)

        def get_batch_size(self) -> int:
            return batch

        def get_batch(self, names: List[str]) -> Optional[List[int]]:
            images = tensors[self._next:self._next + batch]
            if len(images) < batch:
                return None
            self._next += batch
            device.copy_in(self._memory, np.ascontiguousarray(np.concatenate(images)))
            return [self._memory.pointer]

        def read_calibration_cache(self) -> Optional[bytes]:
            return cache.read_bytes() if cache.is_file() else None

        def write_calibration_cache(self, content) -> None:
            with atomic_path(cache) as temporary:
                temporary.write_bytes(bytes(content))

        def free(self) -> None:
            self._memory.free()

    return Calibrator()
