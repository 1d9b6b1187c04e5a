"""What systemd is told, and who is told nothing."""

import os

import pytest

import service_manager
from yolojet_ros.operate.service_manager import ServiceManager


@pytest.fixture(params=['path', 'abstract'])
def systemd(tmp_path, request):
    """Return systemd's side, at both kinds of addresses."""
    address = tmp_path / 'notify' if request.param == 'path' else f'@yolojet_{os.getpid()}'
    side = service_manager.ServiceManager(address, 2.5)
    yield side
    side.close()


def test_every_word_is_a_datagram(systemd):
    manager = ServiceManager(systemd.environment)
    assert manager.listens and manager.watchdog == 2.5 and not manager.problem
    manager.extend(30)
    manager.ready()
    manager.status('all\nis well')
    manager.status('all is well')  # nothing new
    manager.feed()
    manager.stopping()
    assert systemd.take() == ['EXTEND_TIMEOUT_USEC=30000000', 'READY=1', 'STATUS=all is well',
                              'WATCHDOG=1', 'STOPPING=1']


@pytest.mark.parametrize('values, watchdog', [
    ({'WATCHDOG_PID': str(os.getpid())}, 2.5), ({'WATCHDOG_PID': '1'}, None),
    ({'WATCHDOG_USEC': '0'}, None), ({'WATCHDOG_USEC': 'soon'}, None),
    ({'NOTIFY_SOCKET': ''}, None)])
def test_the_watchdog_waits_for_the_process_that_it_names(tmp_path, values, watchdog):
    environment = dict(NOTIFY_SOCKET=str(tmp_path / 'n'), WATCHDOG_USEC='2500000')
    assert ServiceManager({**environment, **values}).watchdog == watchdog


@pytest.mark.parametrize('name, words', [
    ('vsock:2:1', 'expected a path that begins with /'), ('/', 'expected a path'),
    ('/nobody/listens', 'cannot be told READY: No such file'),
    ('@' + 'x' * 200, 'cannot be told')])
def test_a_socket_that_does_not_work_is_said_and_forgiven(name, words):
    manager = ServiceManager({'NOTIFY_SOCKET': name})
    manager.ready()
    assert words in manager.problem
    assert not ServiceManager({}).problem


def test_a_full_queue_does_not_hold_up_the_service(systemd):
    manager = ServiceManager(systemd.environment)
    for _ in range(2000):
        manager.feed()
        if manager.problem:
            break
    assert 'cannot be told WATCHDOG' in manager.problem
    systemd.take()
    manager.ready()
    assert systemd.take()[-1] == 'READY=1'
