"""All checks, in the order in which they are made: a new one is a function and a line here."""

from __future__ import annotations

from typing import Iterable, List

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.text import nearest, shown
from yolojet_ros.operate.doctor.check import Check
from yolojet_ros.operate.doctor.checks import (
    cuda, dds, engine, graph, jetson, kernel, memory, python, ros, security, tensorrt)

CHECKS = (
    Check('interpreter', 'python', python.interpreter, 'version of Python'),
    Check('libraries', 'python', python.libraries, 'NumPy, OpenCV, PyYAML, SciPy', 30),
    Check('onnxruntime', 'python', python.onnxruntime, 'ONNX Runtime and its providers', 30),

    Check('rmw', 'ros', ros.rmw, 'the middleware that RMW_IMPLEMENTATION names'),
    Check('rclpy', 'ros', ros.rclpy, 'distribution, rclpy, messages', 30),
    Check('discovery', 'ros', ros.discovery, 'domain, and who finds whom'),
    Check('vision_msgs', 'ros', ros.vision_msgs, 'type hashes of the messages installed here'),
    Check('security', 'ros', security.security, 'whether SROS 2 is on'),

    Check('dds_settings', 'dds', dds.dds_settings, 'variables and profiles that lose images'),
    Check('socket_buffer', 'dds', kernel.socket_buffer, 'net.core.rmem_max'),
    Check('shared_memory', 'dds', kernel.shared_memory, '/dev/shm'),
    Check('images', 'dds', dds.images, '40 images of 1280x720 between two processes', 45),

    Check('cuda_driver', 'gpu', cuda.cuda_driver, 'driver, cuInit, GPUs', 20),
    Check('cuda_runtime', 'gpu', cuda.cuda_runtime, 'CUDA of driver, runtime and TensorRT', 20),
    Check('cuda_libraries', 'gpu', cuda.cuda_libraries, 'cuDNN and cuBLAS', 30),
    Check('kernel_compiler', 'gpu', cuda.kernel_compiler, 'nvcc or NVRTC', 20),
    Check('pycuda', 'gpu', cuda.pycuda, 'PyCUDA, and a context', 30),
    Check('tensorrt', 'gpu', tensorrt.tensorrt, 'TensorRT, and a builder', 60),
    Check('engine', 'gpu', engine.engine, 'the engine, its card, its ONNX file, this GPU', 60),

    Check('jetpack', 'machine', jetson.jetpack, 'Jetson, L4T and JetPack'),
    Check('power_mode', 'machine', jetson.power_mode, 'nvpmodel'),
    Check('locked_clocks', 'machine', jetson.locked_clocks, 'jetson_clocks'),
    Check('thermal', 'machine', jetson.thermal, 'heat, throttling, over-current', 10),
    Check('memory', 'machine', memory.memory, 'memory, and the limit of a container'),
    Check('swap', 'machine', memory.swap, 'swap'),
    Check('gpu_memory', 'machine', memory.gpu_memory, 'memory of the GPU', 10),

    Check('cameras', 'graph', graph.cameras, 'QoS of cameras and their listeners', 30),
    Check('stamps', 'graph', graph.stamps, 'stamps of images and the clock of the node', 30),
    Check('message_types', 'graph', graph.message_types, 'type hashes of vision_msgs in use', 30),
)


def chosen(only: Iterable[str], skip: Iterable[str]) -> List[Check]:
    """
    Return the checks that names of checks and areas leave.

    :param only: take these; empty takes all
    :raises UserError: if there is no such check or area, or none is left.
    """
    known = {check.name for check in CHECKS} | {check.area for check in CHECKS}
    only, skip = list(only), list(skip)
    for name in (*only, *skip):
        if name not in known:
            raise UserError(f'there is no check or area {shown(name)}{nearest(name, known)}; '
                            '"yolojet doctor --list" names all')
    left = [check for check in CHECKS
            if (not only or {check.name, check.area} & set(only))
            and not {check.name, check.area} & set(skip)]
    if not left:
        raise UserError('--only and --skip leave no check')
    return left
