"""Run a YOLOv8 ONNX file with ONNX Runtime on the CPU."""

from __future__ import annotations

import os
from pathlib import Path
from typing import List, Optional, Tuple, Union

import numpy as np

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.installing import install_command
from yolojet_ros.core.letterbox import PAD_VALUE
from yolojet_ros.core.model_card import ModelCard, read_input
from yolojet_ros.core.text import one_line
from yolojet_ros.inference.backend import BackendError, HostBackend

_MOST_THREADS = 256
_INPUT_TYPES = {'tensor(float)': False, 'tensor(float16)': True}


class OnnxRuntimeBackend(HostBackend):
    """
    ONNX Runtime's CPU provider.

    :param model: path of an ONNX file
    :param threads: threads that compute a frame; None or 0 for one a core
    :param spinning: let them wait for the next operation, and for the next frame, by asking all
        the time: quicker, but it takes the cores from everybody else (`yolojet bench --cpu`)
    :raises UserError: if the file is missing, broken or not a YOLOv8 detector.
    """

    name = 'onnxruntime'

    def __init__(
        self, model: Union[str, Path], threads: Optional[int] = None, spinning: bool = False,
    ) -> None:
        self.session = _load_session(Path(model), threads, spinning)
        # Naming the head spares the session the other outputs (feature maps, say).
        head, card = _read_head(self.session, Path(model).name)
        super().__init__(card)
        self._input, self._outputs = self.session.get_inputs()[0].name, [head]
        if self.places > 1:  # a fixed batch runs whole: the image fills all places
            one = self._letterboxer.tensor
            self._batch = np.empty((self.places, *one.shape[1:]), one.dtype)
        import onnxruntime
        self.description = f'ONNX Runtime {onnxruntime.__version__} on CPU'

    def run(self, tensor: np.ndarray) -> List[np.ndarray]:
        if self.places > 1:
            self._batch[...] = tensor
            tensor = self._batch
        try:
            return [output[:1] for output in self.session.run(
                self._outputs, {self._input: tensor})]
        except Exception as error:  # onnxruntime has no base class of its own
            raise BackendError(f'ONNX Runtime failed: {error}') from error

    def close(self) -> None:
        super().close()
        self.session = None


def _load_session(path: Path, threads: Optional[int], spinning: bool):
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(
            'ONNX Runtime, which runs .onnx files, is not installed; run '
            f'"{install_command("onnxruntime")}" or use a TensorRT engine') from error
    if not 0 <= (threads or 0) <= _MOST_THREADS:
        raise UserError(f'{threads} threads were asked for; it must be 0 to {_MOST_THREADS}')
    if not path.is_file():
        raise UserError(f'no model file at {path}; give the path of a YOLOv8 ONNX file')
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or os.cpu_count() or 1
    options.add_session_config_entry('session.intra_op.allow_spinning', str(int(spinning)))
    try:
        return onnxruntime.InferenceSession(
            str(path), options, providers=['CPUExecutionProvider'], enable_fallback=False)
    except Exception as error:  # onnxruntime has no base class of its own
        if not path.is_file():
            raise UserError(f'{path} was removed while it was loaded; put it back') from error
        reason = one_line(str(error), 300)
        raise UserError(
            f'{path.name} ({path.stat().st_size} bytes) is not an ONNX file that ONNX Runtime '
            f'can load ({reason}); export or copy it again') from error


def _read_head(session, source: str) -> Tuple[str, ModelCard]:
    """
    Return the name of the output that is the head, and the model card.

    The sizes of the outputs are those of one run on a blank image: files leave them open.
    """
    try:
        inputs, outputs = session.get_inputs(), session.get_outputs()
        metadata = session.get_modelmeta().custom_metadata_map
    except ValueError as error:  # names and metadata may be any bytes
        raise UserError(
            f'{source} has names or metadata that are not UTF-8 ({error}); export it again'
        ) from error
    if len(inputs) != 1 or inputs[0].type not in _INPUT_TYPES:
        found = one_line(', '.join(f'{item.name} {item.type}' for item in inputs), 200)
        raise UserError(
            f'{source} takes {found or "no input"}; one float image input of a YOLOv8 '
            'detection model is needed')
    image = inputs[0]
    half = _INPUT_TYPES[image.type]
    batch, (width, height) = read_input(source, metadata, image.shape)
    names = [item.name for item in outputs if item.type in _INPUT_TYPES]
    blank = np.full((batch or 1, 3, height, width), PAD_VALUE / 255,
                    np.float16 if half else np.float32)
    try:
        outputs = session.run(names, {image.name: blank}) if names else []
    except Exception as error:  # onnxruntime has no base class of its own
        raise UserError(
            f'{source} cannot run on a blank image of {width}x{height} '
            f'({one_line(str(error), 300)}); export it again') from error
    index, card = ModelCard.from_outputs(
        source, metadata, image.shape, [output.shape for output in outputs], half)
    return names[index], card
