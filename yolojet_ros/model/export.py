"""Export a network to ONNX, as users' YOLOv8 exports look. Needs PyTorch."""

from __future__ import annotations

import copy
import io
from pathlib import Path
import tempfile
from typing import Dict, Optional
import warnings
import zipfile
import zlib

import numpy as np
import torch

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.installing import install_command
from yolojet_ros.model import onnx_file
from yolojet_ros.model.checkpoint import check_size, TrainedModel
from yolojet_ros.model.nms_graph import append_nms, NmsSettings
from yolojet_ros.model.yolov8 import Detector, Task

MIN_OPSET, MAX_OPSET = 13, 19
# Largest difference between PyTorch and ONNX Runtime, relative to boxes in pixels.
TOLERANCE = 1e-4


def export(
    model: TrainedModel, path: Path, opset: int = 17, dynamic_batch: bool = False,
    nms: Optional[NmsSettings] = None,
) -> float:
    """
    Write `model` to an ONNX file with input 'images' and output 'output0'.

    A segmentation network also has 'output1', its prototypes.

    :param opset: 13 (TensorRT 8.2) to 19.
    :param dynamic_batch: leave the number of images open instead of 1.
    :param nms: end the graph in NMS instead of the raw head [1, 4 + classes, A].
    :returns: largest difference to PyTorch on a random image, relative to the input's width
        for boxes and keypoints and absolute for the rest.
    :raises UserError: for an opset outside the range, or NMS for a task other than detection.
    """
    task = model.network.task
    if nms and task.name != 'detect':
        raise UserError(
            f'NMS in the graph works for detection only, and this is a {task.name} network; leave '
            'out --nms (the node does it)')
    if not MIN_OPSET <= opset <= MAX_OPSET:
        raise UserError(
            f'opset {opset} is not supported; choose {MIN_OPSET} (TensorRT 8.2) '
            f'to {MAX_OPSET}')
    detector = Detector(copy.deepcopy(model.network)).cpu().float().eval()
    detector.to(memory_format=torch.contiguous_format)
    width, height = model.input_size
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((1, 3, height, width), generator=generator)
    graph = _simplify(_trace(detector, images, opset, dynamic_batch))
    onnx_file.name_nodes(graph)
    onnx_file.set_metadata(graph, {
        **onnx_file.card_metadata(model.names, model.input_size), **_task_metadata(task),
        **model.recipe})
    graph.producer_name = 'yolojet_ros'
    error = _difference(graph, detector, images)
    if error > TOLERANCE:
        raise RuntimeError(
            f'the exported graph differs from PyTorch by {error:.2g}, more than {TOLERANCE:g}')
    if nms:
        append_nms(graph, nms)
    onnx_file.save(graph, path)
    return error


def _trace(detector: Detector, images: torch.Tensor, opset: int, dynamic_batch: bool):
    import onnx

    outputs = ['output0', 'output1'][:1 + (detector.network.prototypes is not None)]
    axes = {name: {0: 'batch'} for name in ('images', *outputs)} if dynamic_batch else None
    with io.BytesIO() as file, warnings.catch_warnings():
        # Shapes become constants on purpose: height and width are fixed.
        warnings.simplefilter('ignore')
        # The tracing exporter: the newer one cannot write opset 13.
        torch.onnx.export(
            detector, (images,), file, input_names=['images'], output_names=outputs,
            opset_version=opset, dynamic_axes=axes, dynamo=False)
        return onnx.load_model_from_string(file.getvalue())


def _simplify(graph):
    try:
        import onnxslim
    except ImportError as error:
        raise UserError(
            f'exporting needs onnxslim; run "{install_command("onnxslim")}"') from error
    return onnxslim.slim(graph)


def _difference(graph, detector: Detector, images: torch.Tensor) -> float:
    import onnxruntime

    with torch.no_grad():
        expected = detector(images)
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=['CPUExecutionProvider'])
    expected = [expected] if isinstance(expected, torch.Tensor) else expected
    found = session.run(None, {'images': images.numpy()})
    differences = [np.abs(a - b.numpy()) for a, b in zip(found, expected)]
    network = detector.network
    points, values = network.task.keypoints
    pixels = [0, 1, 2, 3, *(
        4 + network.classes + values * k + axis for k in range(points) for axis in (0, 1))]
    differences[0][:, pixels] /= images.shape[-1]
    return float(max(difference.max() for difference in differences))


def _task_metadata(task: Task) -> Dict[str, str]:
    """Name the task, and the shape of its keypoints, as exports in the field do."""
    if task.name != 'pose':
        return {'task': task.name}
    return {'task': task.name, 'kpt_shape': repr(list(task.keypoints))}


def is_ultralytics(weights: Path) -> bool:
    """
    Tell weights that were pickled with classes of ultralytics, without running them.

    :raises UserError: as checkpoint.check_size().
    """
    check_size(weights)
    with zipfile.ZipFile(str(weights)) as archive:
        names = [n for n in archive.namelist() if n.endswith('/data.pkl')]
        try:
            return any(b'ultralytics' in archive.read(name) for name in names)
        except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile, zlib.error):
            return False


def export_ultralytics(
    weights: Path, path: Path, size, opset: int, dynamic_batch: bool = False,
    nms: Optional[NmsSettings] = None, trust: bool = False,
) -> None:
    """
    Let the ultralytics package export its own weights.

    :param size: (width, height) of the input.
    :param nms: end the graph in NMS.
    :param trust: reading such a file runs what its author put into it; the user agrees.
    :raises UserError: if that is not agreed, or the package is missing or refuses the file.
    """
    if not trust:
        raise UserError(
            f'{weights} is pickled with classes of ultralytics, and reading it runs whatever '
            'code its author put into it; if you know where it comes from, add --trust')
    try:
        from ultralytics import YOLO
    except ImportError as error:
        raise UserError(
            f'{weights} is no weight file of "yolojet model train"; to export weights of '
            f'ultralytics, install that package ("{install_command("ultralytics")}")'
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        # It writes beside the weights, so give it a copy of its own.
        own = Path(folder, 'weights.pt')
        own.write_bytes(Path(weights).read_bytes())
        try:
            exported = YOLO(str(own)).export(
                format='onnx', imgsz=[size[1], size[0]], opset=opset, dynamic=dynamic_batch,
                simplify=True)
        except Exception as error:  # whatever that package raises
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(
                f'ultralytics cannot export {weights} ({reason[:120]}); check that it is a '
                'YOLOv8 detection model') from error
        graph = onnx_file.load(Path(exported))
    onnx_file.card(graph, Path(weights).name)
    if nms:
        onnx_file.name_nodes(graph)
        append_nms(graph, nms)
    onnx_file.save(graph, path)
