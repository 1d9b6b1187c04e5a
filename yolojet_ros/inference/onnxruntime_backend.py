"""Run a YOLOv8 ONNX file with ONNX Runtime on the CPU."""

from __future__ import annotations

import os
from pathlib import Path
from typing import List, Optional, Union

import numpy as np

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.installing import install_command
from yolojet_ros.core.model_card import ModelCard
from yolojet_ros.inference.backend import BackendError, HostBackend

_INPUT_TYPES = {'tensor(float)': False, 'tensor(float16)': True}


class OnnxRuntimeBackend(HostBackend):
    """
    ONNX Runtime's CPU provider.

    :param model: path of an ONNX file
    :param threads: intra-op threads; None for all cores
    :raises UserError: if the file is missing, broken or not a YOLOv8 detector.
    """

    name = 'onnxruntime'

    def __init__(self, model: Union[str, Path], threads: Optional[int] = None) -> None:
        self.session = _load_session(Path(model), threads)
        super().__init__(_read_card(self.session, Path(model).name))
        self._input = self.session.get_inputs()[0].name
        # Naming the output spares the session the others (an engine may carry feature maps).
        self._outputs = [self.session.get_outputs()[0].name]
        import onnxruntime
        self.description = f'ONNX Runtime {onnxruntime.__version__} on CPU'

    def run(self, tensor: np.ndarray) -> List[np.ndarray]:
        try:
            return self.session.run(self._outputs, {self._input: tensor})
        except Exception as error:  # onnxruntime has no base class of its own
            raise BackendError(f'ONNX Runtime failed: {error}') from error

    def close(self) -> None:
        super().close()
        self.session = None


def _load_session(path: Path, threads: Optional[int]):
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(
            'ONNX Runtime, which runs .onnx files, is not installed; run '
            f'"{install_command("onnxruntime")}" or use a TensorRT engine') from error
    if not path.is_file():
        raise UserError(f'no model file at {path}; give the path of a YOLOv8 ONNX file')
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or os.cpu_count() or 1
    # Idle workers that spin take the cores from the camera and from other nodes.
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    try:
        return onnxruntime.InferenceSession(
            str(path), options, providers=['CPUExecutionProvider'])
    except Exception as error:  # onnxruntime has no base class of its own
        reason = str(error).splitlines()[0]
        raise UserError(
            f'{path.name} ({path.stat().st_size} bytes) is not an ONNX file that ONNX Runtime '
            f'can load ({reason}); export or copy it again') from error


def _read_card(session, source: str) -> ModelCard:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or inputs[0].type not in _INPUT_TYPES:
        found = ', '.join(f'{item.name} {item.type}' for item in inputs)
        raise UserError(
            f'{source} takes {found or "no input"}; one float image input of a YOLOv8 '
            'detection model is needed')
    return ModelCard.from_tensors(
        source, session.get_modelmeta().custom_metadata_map, inputs[0].shape,
        outputs[0].shape, half=_INPUT_TYPES[inputs[0].type])
