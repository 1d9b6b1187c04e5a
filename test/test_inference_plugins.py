"""Users' own TensorRT plugin libraries."""

import ctypes
import shutil
import subprocess

import pytest

from yolojet_ros.core.errors import UserError
from yolojet_ros.inference.tensorrt_network import load_plugins


@pytest.mark.skipif(shutil.which('gcc') is None, reason='gcc is not installed')
def test_a_library_is_loaded_for_the_whole_process(tmp_path):
    source, library = tmp_path / 'plugin.c', tmp_path / 'my plügin.so'
    source.write_text('int yolojet_test_plugin(void) { return 42; }')
    subprocess.run(['gcc', '-shared', '-fPIC', '-o', str(library), str(source)], check=True)
    load_plugins([str(library)])
    assert ctypes.CDLL(None).yolojet_test_plugin() == 42


@pytest.mark.parametrize('content', [None, b'not a library'])
def test_a_missing_or_foreign_library_is_one_sentence(tmp_path, content):
    path = tmp_path / 'plugin.so'
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match='plugin.so cannot be loaded.*give the path') as error:
        load_plugins([str(path)])
    assert '\n' not in str(error.value)
