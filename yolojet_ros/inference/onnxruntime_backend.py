"""Run an ONNX file with ONNX Runtime on the CPU."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from yolojet_ros.core.card_file import CardFile
from yolojet_ros.core.decode import of_image
from yolojet_ros.core.errors import UserError
from yolojet_ros.core.image_input import ImageInput
from yolojet_ros.core.installing import install_command
from yolojet_ros.core.model_card import ModelCard, read_image_input, read_input
from yolojet_ros.core.tensors import is_fixed, TensorSpec
from yolojet_ros.core.text import one_line
from yolojet_ros.inference.backend import BackendError, HostBackend

_MOST_THREADS = 256
_TYPES = {
    'float': 'float32', 'float16': 'float16', 'uint8': 'uint8', 'int64': 'int64',
    'int32': 'int32', 'double': 'float64'}


class OnnxRuntimeBackend(HostBackend):
    """
    ONNX Runtime's CPU provider.

    :param model: path of an ONNX file
    :param threads: threads that compute a frame; None or 0 for one a core
    :param spinning: let them wait for the next operation, and for the next frame, by asking all
        the time: quicker, but it takes the cores from everybody else (`yolojet bench --cpu`)
    :param input_size: (width, height) for a model that leaves it open
    :param profile: what a file begins with in which ONNX Runtime is to keep its layers' times
    :raises UserError: if the file is missing, broken or has no head that is known.
    """

    name = 'onnxruntime'

    def __init__(
        self, model: Union[str, Path], threads: Optional[int] = None, spinning: bool = False,
        input_size: Optional[Tuple[int, int]] = None, profile: str = '',
    ) -> None:
        self.session = _load_session(Path(model), threads, spinning, profile)
        # Naming the head spares the session the other outputs (feature maps, say).
        self._outputs, card = _read_head(
            self.session, Path(model).name, CardFile.metadata(model), input_size)
        super().__init__(card)
        image, *others = self.session.get_inputs()
        self._input = image.name
        # Boxes are asked for in pixels of the input, whatever the image.
        self._sizes = {
            other.name: np.array([card.input_size] * self.places, np.int64) for other in others}
        import onnxruntime
        self.description = f'ONNX Runtime {onnxruntime.__version__} on CPU'

    def run(self, tensor: np.ndarray) -> List[List[np.ndarray]]:
        if len(tensor) < self.places:
            tensor = np.repeat(tensor, self.places, axis=0)
        try:
            outputs = self.session.run(self._outputs, {self._input: tensor, **self._sizes})
        except Exception as error:  # onnxruntime has no base class of its own
            raise BackendError(f'ONNX Runtime failed: {error}') from error
        try:
            return [of_image(outputs, self.card.head, image) for image in range(self.places)]
        except IndexError as error:
            raise BackendError(
                f'{self.card.source} gave an output without a batch dimension, or an empty one; '
                'export it with fixed sizes') from error

    def close(self) -> None:
        super().close()
        self.session = None


def _load_session(path: Path, threads: Optional[int], spinning: bool, profile: str = ''):
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(
            'ONNX Runtime, which runs .onnx files, is not installed; run '
            f'"{install_command("onnxruntime")}" or use a TensorRT engine') from error
    if not 0 <= (threads or 0) <= _MOST_THREADS:
        raise UserError(f'{threads} threads were asked for; it must be 0 to {_MOST_THREADS}')
    if not path.is_file():
        raise UserError(f'no model file at {path}; give the path of an ONNX file')
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised, too
    options.intra_op_num_threads = threads or os.cpu_count() or 1
    options.add_session_config_entry('session.intra_op.allow_spinning', str(int(spinning)))
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    try:
        return _open_session(onnxruntime, path, options)
    except Exception as error:  # onnxruntime has no base class of its own
        if not path.is_file():
            raise UserError(f'{path} was removed while it was loaded; put it back') from error
        reason = one_line(str(error), 300)
        raise UserError(
            f'{path.name} ({path.stat().st_size} bytes) is not an ONNX file that ONNX Runtime '
            f'can load ({reason}); export or copy it again') from error


def _open_session(onnxruntime, path: Path, options):
    def load():
        return onnxruntime.InferenceSession(
            str(path), options, providers=['CPUExecutionProvider'], enable_fallback=False)

    try:
        return load()
    except Exception as error:  # onnxruntime has no base class of its own
        if 'QLinear' not in str(error):
            raise
        # It fuses a concatenation between Q/DQ with FP16 scales into an operator without FP16.
        options.add_session_config_entry('session.disable_quant_qdq', '1')
        return load()


def _read_head(
    session, source: str, said: Mapping[str, str], input_size: Optional[Tuple[int, int]],
) -> Tuple[List[str], ModelCard]:
    """
    Return the names of the outputs that are the head, and the model card.

    The sizes of the outputs are those of one run on a blank image: files leave them open.

    :param said: what the card file beside the model adds to its metadata
    """
    try:
        inputs = [_spec(item) for item in session.get_inputs()]
        outputs = [_spec(item) for item in session.get_outputs()]
        metadata = {**session.get_modelmeta().custom_metadata_map, **said}
    except ValueError as error:  # names and metadata may be any bytes
        raise UserError(
            f'{source} has names or metadata that are not UTF-8 ({error}); export it again'
        ) from error
    image = read_image_input(source, inputs)
    batch, (width, height) = read_input(source, metadata, image.shape, input_size)
    feeds: Dict[str, np.ndarray] = {image.name: np.empty((batch or 1, 3, height, width))}
    feeds[image.name][:] = ImageInput(dtype=image.dtype).blank[0]
    feeds[image.name] = feeds[image.name].astype(image.dtype)
    for other in inputs[1:]:
        feeds[other.name] = np.array([(width, height)] * (batch or 1), np.int64)
    try:
        found = session.run([item.name for item in outputs], feeds)
    except Exception as error:  # onnxruntime has no base class of its own
        raise UserError(
            f'{source} cannot run on a blank image of {width}x{height} '
            f'({one_line(str(error), 300)}); export it again') from error
    card = ModelCard.read(
        source, metadata, inputs, _with_sizes(outputs, found), (width, height)
        if not all(map(is_fixed, image.shape[2:])) else None)
    return [outputs[index].name for index in card.head.outputs], card


def _spec(item) -> TensorSpec:
    kind = item.type[len('tensor('):-1] if item.type.startswith('tensor(') else item.type
    return TensorSpec(item.name, _TYPES.get(kind, one_line(kind, 40)), tuple(item.shape))


def _with_sizes(outputs: Sequence[TensorSpec], found: Sequence) -> List[TensorSpec]:
    """Return the outputs with the sizes of one run; a list of all images' objects stays open."""
    return [
        item if len(item.shape) == 2 and not is_fixed(item.shape[0])
        else TensorSpec(item.name, item.dtype, np.shape(value))
        for item, value in zip(outputs, found)]
