"""What may be run is read only from where nobody else could have put it."""

import os

import pytest

from yolojet_ros.core import private_cache


@pytest.fixture(autouse=True)
def base(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    return tmp_path


def test_what_is_kept_is_read_again_and_open_to_nobody_else():
    previous = os.umask(0o002)
    try:
        private_cache.write('a.cubin', b'code')
    finally:
        os.umask(previous)
    assert private_cache.read('a.cubin') == b'code'
    assert private_cache.read('b.cubin') is None
    folder = private_cache.folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / 'a.cubin').stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize('mode', [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_is_not_read(mode):
    private_cache.write('a.cubin', b'code')
    (private_cache.folder() / 'a.cubin').chmod(mode)
    assert private_cache.read('a.cubin') is None
    private_cache.write('a.cubin', b'again')
    assert private_cache.read('a.cubin') == b'again'


def test_a_link_is_not_followed(base):
    (base / 'theirs').write_bytes(b'foreign')
    private_cache.write('a.cubin', b'code')
    (private_cache.folder() / 'b.cubin').symlink_to(base / 'theirs')
    assert private_cache.read('b.cubin') is None
    os.rename(private_cache.folder(), base / 'moved')
    private_cache.folder().symlink_to(base / 'moved')
    assert private_cache.read('a.cubin') is None
    with pytest.raises(OSError, match='not a folder of this user'):
        private_cache.write('a.cubin', b'code')


def test_a_folder_that_others_can_write_is_closed_to_them():
    private_cache.folder().mkdir()
    private_cache.folder().chmod(0o777)
    private_cache.write('a.cubin', b'code')
    assert private_cache.folder().stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason='only root can give files away')
def test_files_and_folders_of_another_user_are_not_read():
    private_cache.write('a.cubin', b'code')
    os.chown(private_cache.folder() / 'a.cubin', 12345, 12345)
    assert private_cache.read('a.cubin') is None
    private_cache.write('a.cubin', b'code')
    os.chown(private_cache.folder(), 12345, 12345)
    assert private_cache.read('a.cubin') is None
    with pytest.raises(OSError, match='not a folder of this user'):
        private_cache.write('a.cubin', b'code')


def test_without_a_home_nothing_is_kept_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('XDG_CACHE_HOME', 'relative')
    monkeypatch.setattr(os.path, 'expanduser', lambda path: path)
    with pytest.raises(OSError, match='no home folder'):
        private_cache.write('a.cubin', b'code')
    assert private_cache.read('a.cubin') is None and not list(tmp_path.iterdir())
