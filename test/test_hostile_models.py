"""Mutated ONNX files: loaded and run, or refused in one sentence, and never a crash."""

import json
import os
from pathlib import Path
import signal
import subprocess
import sys

import conv_model
from models import raw_output, write_model
from mutations import count, mutate_bytes, refused
import numpy as np
import onnx
import pytest

_SIZE = (64, 64)
_PIECES = (b'\0', b'\xff', b'\x80', b'\x08', b'\x12\x00', b'\x0a\xff\xff\xff\xff\x0f', b'{', b']',
           b'imgsz', b'(' * 40, b'\xc3\x28', b'nan', b'1e999', b'-1', b'\n')
_TEXTS = ('', ' ', 'x', '-1', '0', '1e999', 'nan', 'inf', '[', '[' * 300, '{0: 1', '{}', '[]',
          "['a', 'b', 'c']", '{0: "a", 2: "b"}', '[64]', '[64, 64, 64]', '[-64, 64]', '[0, 0]',
          '[1e30, 64]', '[nan, 64]', "['a', 'b']", '64', '64.5', '10**9', '__import__("os")',
          '9' * 5000, 'a\nb', '\x1b[2J', 'segment', 'x' * 70_000, '(' * 5000, '-' * 5000 + '1',
          '{0: {0: ' * 90, '1_000', '"', '\u202e')
_SIZES = (0, -1, 1, 2, 3, 4, 6, 31, 64, 84, 2**31 - 1, 2**31, 2**62, -2**63)


def _base(folder):
    """Return models of a few kinds, small enough to run in no time."""
    output = raw_output([[32, 32, 20, 20]], [[0.9, 0, 0]], _SIZE)
    write_model(folder / 'raw.onnx', output, _SIZE)
    write_model(folder / 'transposed.onnx', output.transpose(0, 2, 1), _SIZE)
    write_model(folder / 'final.onnx', np.zeros((1, 9, 6)), _SIZE)
    for kind in ('float', 'half', 'qdq'):
        conv_model.write(folder, kind)
    return [(folder / f'{name}.onnx').read_bytes()
            for name in ('raw', 'transposed', 'final', 'float', 'half', 'qdq')]


def _mutate_graph(rng, data):
    """Change metadata, shapes, types, names and attributes, as a careless or wicked tool would."""
    model = onnx.load_model_from_string(data)
    for _ in range(int(rng.integers(1, 4))):
        kind, text = rng.integers(9), _TEXTS[int(rng.integers(len(_TEXTS)))]
        size = _SIZES[int(rng.integers(len(_SIZES)))]
        graph = model.graph
        values = [*graph.input, *graph.output]
        value = values[int(rng.integers(len(values)))] if values else None
        if kind < 3 and model.metadata_props:
            entry = model.metadata_props[int(rng.integers(len(model.metadata_props)))]
            if kind == 2:
                entry.key = text
            else:
                entry.value = text
        elif kind == 3 and value is not None:
            dims = value.type.tensor_type.shape.dim
            if dims:
                dim = dims[int(rng.integers(len(dims)))]
                if rng.random() < 0.3:
                    dim.dim_param = text
                else:
                    dim.dim_value = size
        elif kind == 4 and value is not None:
            value.type.tensor_type.elem_type = int(rng.integers(0, 25))
        elif kind == 5 and value is not None:
            if rng.random() < 0.5:
                value.name = text
            else:
                value.type.tensor_type.ClearField('shape')
        elif kind == 6 and graph.node:
            node = graph.node[int(rng.integers(len(graph.node)))]
            if rng.random() < 0.3:
                node.op_type = ('Loop', 'Conv', 'Resize', 'NonMaxSuppression', text)[
                    int(rng.integers(5))]
            elif node.input and rng.random() < 0.6:
                node.input[int(rng.integers(len(node.input)))] = text
            else:
                node.domain = text
        elif kind == 7 and graph.initializer:
            constant = graph.initializer[int(rng.integers(len(graph.initializer)))]
            if constant.dims:
                constant.dims[int(rng.integers(len(constant.dims)))] = size
            else:
                constant.raw_data = b''
        else:
            model.opset_import[0].version = size if rng.random() < 0.5 else 99
    return model.SerializeToString()


def _mutated(rng, data):
    return mutate_bytes(rng, data, _PIECES) if rng.random() < 0.5 else _mutate_graph(rng, data)


def _use(path):
    """Do all that the node and the commands do with a model that somebody gave them."""
    from yolojet_ros.core.filters import FilterParams
    from yolojet_ros.core.image_formats import ImageView
    from yolojet_ros.core.stage_times import StageTimes
    from yolojet_ros.inference.load import load_backend

    backend = load_backend(path, 'onnxruntime')
    try:
        card = backend.card
        image = ImageView.from_bgr(np.zeros((40, 70, 3), np.uint8))
        backend.detect(image, FilterParams().resolve(card.names), StageTimes())
        json.dumps([*card.names, card.input_size, card.stride])
    finally:
        backend.close()


def _inspect(path):
    from yolojet_ros.engine import model_facts
    from yolojet_ros.model import onnx_file
    onnx_file.metadata(onnx_file.load(path))
    model_facts.read(path)


def main(folder, seed, total):
    """Try mutations of one seed; the file at hand stays in `folder` if the process dies."""
    rng, folder = np.random.default_rng(seed), Path(folder)
    bases, path, bad = _base(folder), folder / 'm.onnx', 0
    for index in range(total):
        path.write_bytes(_mutated(rng, bases[index % len(bases)]))
        bad += refused(_use, path)
        refused(_inspect, path)
    print(f'{bad} of {total} refused')


@pytest.mark.parametrize('seed', range(2))
def test_a_mutated_model_is_used_or_refused_in_one_sentence(tmp_path, seed):
    # In a process of its own: a parser in C++ may crash, which is to be seen here, too.
    total = count(1000)
    process = subprocess.run(
        [sys.executable, __file__, str(tmp_path), str(seed), str(total)], capture_output=True,
        text=True, timeout=60 + total, env={**os.environ, 'PYTHONPATH': os.pathsep.join(
            (str(Path(__file__).parent), str(Path(__file__).parents[1])))})
    import onnxruntime
    version = tuple(int(part) for part in onnxruntime.__version__.split('.')[:2])
    if process.returncode == -signal.SIGSEGV and version < (1, 15):
        pytest.skip(f'ONNX Runtime {onnxruntime.__version__} itself crashes on a broken graph')
    assert process.returncode == 0, (process.returncode, process.stdout, process.stderr[-3000:])
    assert total / 3 < int(process.stdout.split()[0]) < total


if __name__ == '__main__':
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
