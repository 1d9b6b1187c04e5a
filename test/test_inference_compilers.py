"""Compiling the kernels: which compiler is asked, what becomes of one that refuses."""

import os
from pathlib import Path
import shutil
import subprocess
import sys

import pytest

_ROOT = Path(__file__).resolve().parent.parent
# An NVRTC of CUDA's own interface that knows every architecture, or none.
_NVRTC = r'''
#include <string.h>
static const char *answer = REFUSES ? "error: invalid value for --gpu-architecture" : "KERNELS";
int nvrtcCreateProgram(void **p, const char *s, const char *n, int c, void *h, void *i) {
    *p = (void *)s; return 0; }
int nvrtcCompileProgram(void *p, int n, const char **options) {
    return REFUSES || strcmp(options[0], "--gpu-architecture=sm_120") ? 5 : 0; }
static int size(void *p, size_t *s) { *s = strlen(answer) + REFUSES; return 0; }
static int copy(void *p, char *t) { memcpy(t, answer, strlen(answer)); return 0; }
int nvrtcGetCUBINSize(void *p, size_t *s) { return size(p, s); }
int nvrtcGetCUBIN(void *p, char *t) { return copy(p, t); }
int nvrtcGetProgramLogSize(void *p, size_t *s) { return size(p, s); }
int nvrtcGetProgramLog(void *p, char *t) { return copy(p, t); }
int nvrtcDestroyProgram(void **p) { return 0; }
'''
_COMPILE = '''
import sys
from yolojet_ros.core.errors import UserError
from yolojet_ros.inference.cuda import kernels
try:
    print('binary:', kernels.cubin((12, 0), lambda text: print('warned:', text)).decode())
except UserError as error:
    print('refused:', error)
'''
_REFUSES = '#!/bin/sh\necho "nvcc fatal: Unsupported gpu architecture"\nexit 1\n'
_WORKS = '#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\nprintf NVCC > "$2"\n'

pytestmark = pytest.mark.skipif(shutil.which('gcc') is None, reason='gcc is not installed')


@pytest.fixture
def compile_with(tmp_path):
    """Return a function that compiles with these compilers in a process of its own."""

    def function(nvcc=None, nvrtc=None):
        home = tmp_path / 'cuda'
        (home / 'bin').mkdir(parents=True, exist_ok=True)
        script = home / 'bin' / 'nvcc'
        script.unlink(missing_ok=True)
        if nvcc is not None:
            script.write_text(nvcc)
            script.chmod(0o755)
        for old in home.glob('libnvrtc*'):
            old.unlink()
        if nvrtc is not None:
            (tmp_path / 'nvrtc.c').write_text(_NVRTC.replace('REFUSES', nvrtc))
            subprocess.run(['gcc', '-shared', '-fPIC', '-o', str(home / 'libnvrtc.so'),
                            str(tmp_path / 'nvrtc.c')], check=True)
        done = subprocess.run(
            [sys.executable, '-c', _COMPILE], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            cwd=str(tmp_path), universal_newlines=True, timeout=60, env={
                **os.environ, 'CUDA_HOME': str(home), 'LD_LIBRARY_PATH': str(home),
                'XDG_CACHE_HOME': str(tmp_path / 'cache'), 'PYTHONPATH': os.pathsep.join(
                    [str(_ROOT), os.environ.get('PYTHONPATH', '')])})
        assert done.returncode == 0, done.stdout
        return done.stdout.strip()
    return function


def test_an_nvcc_that_refuses_gives_way_to_nvrtc(compile_with):
    assert compile_with(_REFUSES, nvrtc='0') == 'binary: KERNELS'


def test_an_nvcc_that_cannot_be_started_gives_way_to_nvrtc(compile_with):
    assert compile_with('not a program', nvrtc='0') == 'binary: KERNELS'


def test_where_all_refuse_each_reason_is_told_in_one_line(compile_with):
    text = compile_with(_REFUSES, nvrtc='1')
    assert text.startswith('refused: ') and '\n' not in text
    assert 'nvcc fatal: Unsupported gpu architecture' in text and 'sm_120' in text
    assert 'NVRTC: error: invalid value for --gpu-architecture' in text


def test_without_a_compiler_the_place_of_a_copy_is_told(compile_with, tmp_path):
    if shutil.which('nvcc') or Path('/usr/local/cuda/bin/nvcc').is_file():
        pytest.skip('there is a compiler')
    text = compile_with()
    assert 'neither nvcc nor NVRTC' in text and str(tmp_path / 'cache' / 'yolojet') in text


def test_what_was_compiled_is_used_again_unless_others_could_change_it(compile_with, tmp_path):
    assert compile_with(_WORKS) == 'binary: NVCC'
    assert compile_with(_REFUSES, nvrtc='1') == 'binary: NVCC'
    kept, = (tmp_path / 'cache' / 'yolojet').iterdir()
    kept.chmod(0o666)
    kept.write_bytes(b'FOREIGN')
    assert compile_with(_WORKS) == 'binary: NVCC'


def test_a_binary_that_cannot_be_kept_is_told(compile_with, tmp_path):
    (tmp_path / 'cache').write_text('no folder')
    text = compile_with(_WORKS)
    assert 'binary: NVCC' in text and 'warned: the GPU kernels are compiled at every start' in text


def test_a_binary_beside_an_engine_is_not_loaded(compile_with, tmp_path):
    assert compile_with(_WORKS) == 'binary: NVCC'
    kept, = (tmp_path / 'cache' / 'yolojet').iterdir()
    kept.rename(tmp_path / kept.name)
    (tmp_path / kept.name).write_bytes(b'FOREIGN')
    assert compile_with(_WORKS) == 'binary: NVCC'
