"""Files are replaced whole or not at all, and nothing that is no file is replaced."""

import os

import pytest

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.files import atomic_path, home_path


def _write(path, text='new'):
    with atomic_path(path) as temporary:
        temporary.write_text(text)


def test_a_failure_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / 'a.json'
    path.write_text('old')
    with pytest.raises(RuntimeError):
        with atomic_path(path) as temporary:
            temporary.write_text('half')
            raise RuntimeError
    assert path.read_text() == 'old' and list(tmp_path.iterdir()) == [path]


def test_a_link_stays_and_the_file_behind_it_is_replaced(tmp_path):
    (tmp_path / 'store').mkdir()
    target, link = tmp_path / 'store' / 'v1', tmp_path / 'model.json'
    target.write_text('old')
    link.symlink_to(target)
    with atomic_path(link) as temporary:
        assert temporary.suffix == '.json' and temporary.parent == target.parent
        temporary.write_text('new')
    assert link.is_symlink() and target.read_text() == 'new'


def test_what_is_no_file_is_never_replaced(tmp_path):
    pipe = tmp_path / 'pipe'
    os.mkfifo(pipe)  # stands for /dev/null, which root could replace
    for path in (pipe, tmp_path):
        with pytest.raises(UserError, match='is no file; name a file'):
            _write(path)
    assert pipe.is_fifo() and list(tmp_path.iterdir()) == [pipe]


def test_a_home_that_nobody_has_is_said_in_one_sentence():
    with pytest.raises(UserError, match='"~nobody_of_this_name/x.onnx" begins with ~'):
        home_path('~nobody_of_this_name/x.onnx')
    assert home_path('~/x') == type(home_path('x'))(os.path.expanduser('~/x'))
