"""The doctor on recorded machines: Jetsons, a PC, a container, and what goes wrong there."""

from doctor_machines import BARE, check, CONTAINER, Machine, MIB, NANO, ORIN, PC, THOR, XAVIER
import pytest

from yolojet_ros.operate.doctor import hardware, runner
from yolojet_ros.operate.doctor.check import Options
from yolojet_ros.operate.doctor.table import CHECKS

JETSONS = {'nano': NANO, 'xavier': XAVIER, 'orin': ORIN, 'thor': THOR}


@pytest.mark.parametrize('name, release', [
    ('nano', 'Jetson Nano Developer Kit, L4T 32.7.1 (JetPack 4.6.1 or later)'),
    ('xavier', 'Jetson Xavier NX Developer Kit, L4T 35.4.1 (JetPack 5.1.2)'),
    ('orin', 'Jetson Orin Nano Developer Kit, L4T 36.3.0 (JetPack 6.0)'),
    ('thor', 'Jetson AGX Thor Developer Kit, L4T 38.2.2 (JetPack 7.0)')])
def test_a_jetson_that_is_well(tmp_path, name, release):
    system = Machine(tmp_path, JETSONS[name])
    checks = [item for item in CHECKS if item.area == 'machine' or item.name in (
        'socket_buffer', 'shared_memory')]
    found = {result.check.name: result.finding
             for result in runner.run(checks, system, Options())}
    assert found['jetpack'].found == 'NVIDIA ' + release
    assert found['thermal'].found == '1 zones, the hottest cpu-thermal with 51 C'
    assert {name: item.status for name, item in found.items() if item.status != 'ok'} == {
        'gpu_memory': 'skipped'}


@pytest.mark.parametrize('name, mode, best, command', [
    ('nano', 1, 'MAXN', 0), ('xavier', 3, 'MODE_20W_6CORE', 8), ('orin', 1, '15W', 0),
    ('thor', 3, 'MAXN', 0)])
def test_low_power_mode(tmp_path, name, mode, best, command):
    system = Machine(tmp_path, {
        **JETSONS[name], '/var/lib/nvpmodel/status': f'pmode:{mode:04}\n'})
    finding = check(system, 'power_mode')
    assert finding.status == 'warn' and f'power mode {mode}, ' in finding.found
    assert finding.found.endswith(f'the most is {best}')
    assert finding.command == f'sudo nvpmodel -m {command}'


def test_power_mode_is_asked_of_nvpmodel_where_no_file_tells_it(tmp_path):
    system = Machine(tmp_path, {**ORIN, '/var/lib/nvpmodel/status': None}, {
        'nvpmodel': 'test "$1" = -q && printf "NV Fan Mode:quiet\\nNV Power Mode: 7W\\n1\\n"'})
    assert check(system, 'power_mode').command == 'sudo nvpmodel -m 0'


def test_clocks_that_follow_the_load(tmp_path):
    system = Machine(tmp_path, {
        **ORIN, '/sys/class/devfreq/17000000.gpu/min_freq': '306000000\n',
        '/sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq': '729600\n'})
    finding = check(system, 'locked_clocks')
    assert finding.status == 'warn' and finding.command == 'sudo jetson_clocks'
    assert finding.found == 'clocks follow the load: CPU 730 to 1510 MHz, GPU 306 to 625 MHz'


@pytest.mark.parametrize('path, text, status, words', [
    ('thermal/thermal_zone0/temp', '99500', 'warn', 'cpu-thermal has 100 C, from 99 C on'),
    ('thermal/thermal_zone0/temp', '102000', 'fail', '104 C end the machine'),
    ('thermal/cooling_device1/cur_state', '3', 'warn', 'cpu-throttle-alert is throttled (st'),
    ('hwmon/hwmon3/oc1_event_cnt', '17', 'warn', '17 times over-current'),
    ('thermal/thermal_zone0/temp', '', 'skipped', 'no thermal zones')])
def test_heat_and_current_that_slow_it_down(tmp_path, path, text, status, words):
    finding = check(Machine(tmp_path, {**XAVIER, f'/sys/class/{path}': text}), 'thermal')
    assert finding.status == status and words in finding.found + finding.meaning


def test_a_gpu_of_a_pc_that_is_too_hot(tmp_path):
    system = Machine(tmp_path, PC, {'nvidia-smi': '''cat <<END
    Clocks Event Reasons
        Idle                              : Not Active
        SW Power Cap                      : Active
        HW Slowdown                       : Active
            HW Thermal Slowdown           : Active
            HW Power Brake Slowdown       : Not Active
END'''})
    finding = check(system, 'thermal')
    assert finding.status == 'warn' and finding.found == 'the GPU: HW Thermal Slowdown'


@pytest.mark.parametrize('files, free, status, words', [
    (ORIN, 900, 'warn', '900 of 7812 MiB are free, which the GPU shares'),
    (ORIN, 300, 'fail', 'and what finds none is killed'),
    (PC, 20_000, 'ok', '20000 of 31250 MiB')])
def test_little_memory(tmp_path, files, free, status, words):
    text = '\n'.join(f'MemAvailable: {free * 1024} kB' if line.startswith('MemAvailable') else line
                     for line in files['/proc/meminfo'].splitlines())
    finding = check(Machine(tmp_path, {**files, '/proc/meminfo': text}), 'memory')
    assert finding.status == status and words in f'{finding.found} {finding.meaning}'


def test_the_limit_of_a_container_counts(tmp_path):
    system = Machine(tmp_path, {**CONTAINER, '/sys/fs/cgroup/memory.current': f'{1500 * MIB}\n'})
    finding = check(system, 'memory')
    assert finding.status == 'warn'
    assert finding.found == '548 MiB are free: the container is limited to 2048 MiB'


@pytest.mark.parametrize('name, status', [
    ('nano', 'warn'), ('orin', 'warn'), ('thor', 'ok')])
def test_no_swap_on_a_small_jetson(tmp_path, name, status):
    text = JETSONS[name]['/proc/meminfo'].replace('4000000 kB', '0 kB')
    finding = check(Machine(tmp_path, {**JETSONS[name], '/proc/meminfo': text}), 'swap')
    assert finding.status == status and finding.found.startswith('no swap')
    assert ('swapon' in finding.command) == (status == 'warn')


@pytest.mark.parametrize('free, status', [(6000, 'ok'), (900, 'warn'), (200, 'fail')])
def test_memory_of_the_gpu(tmp_path, free, status):
    system = Machine(tmp_path, PC, {
        'nvidia-smi': f'echo "0, NVIDIA RTX A2000, 12GB, {free}, 12282"'})
    finding = check(system, 'gpu_memory')
    assert finding.status == status
    assert finding.found == f'GPU 0, NVIDIA RTX A2000, 12GB: {free} of 12282 MiB are free'


def test_nvidia_smi_that_cannot_tell(tmp_path):
    system = Machine(tmp_path, PC, {
        'nvidia-smi': 'echo "Failed to initialize NVML: Driver/library version mismatch"; exit 9'})
    assert check(system, 'gpu_memory').status == 'skipped'
    assert 'version mismatch' in check(system, 'gpu_memory').found


def test_small_socket_buffer(tmp_path):
    finding = check(Machine(tmp_path, PC), 'socket_buffer')
    assert finding.status == 'warn'
    assert finding.found == 'net.core.rmem_max is 212992: a socket holds 0.4 MB'
    assert finding.command.startswith('sudo sysctl -w net.core.rmem_max=8388608 && ')


@pytest.mark.parametrize('total, free, left, status, words', [
    (8192, 8000, 3, 'ok', ''), (64, 20, 0, 'warn', '--shm-size=512m'),
    (8192, 3, 4, 'warn', 'fastdds shm clean'), (8192, 3, 0, 'warn', 'ls -lS /dev/shm')])
def test_shared_memory(tmp_path, total, free, left, status, words):
    files = {f'/dev/shm/fastrtps_{index}': '' for index in range(left)}
    system = Machine(tmp_path, {**PC, **files}, disks={'/dev/shm': (total * MIB, free * MIB)})
    finding = check(system, 'shared_memory')
    assert finding.status == status and words in finding.command
    assert (f'with {left} files of Fast DDS' in finding.found) == bool(left)


def test_shared_memory_that_is_missing_or_shut(tmp_path):
    (tmp_path / 'none').mkdir()
    finding = check(Machine(tmp_path / 'none', {}, disks={'/dev/shm': None}), 'shared_memory')
    assert finding.status == 'fail' and finding.command == 'sudo mount -t tmpfs tmpfs /dev/shm'
    system = Machine(tmp_path, PC)
    system.writable = lambda path: False  # the superuser can write everywhere
    finding = check(system, 'shared_memory')
    assert finding.status == 'fail' and finding.command == 'sudo chmod 1777 /dev/shm'


def test_a_jetson_in_a_container(tmp_path):
    files = {**ORIN, '/.dockerenv': ''}
    (tmp_path / 'bare').mkdir()
    finding = check(Machine(tmp_path / 'bare', files), 'jetpack')
    assert finding.status == 'fail' and '--runtime nvidia' in finding.meaning
    finding = check(Machine(tmp_path, {
        **files, '/dev/nvmap': '', '/etc/nv_tegra_release': None}), 'jetpack')
    assert finding.status == 'warn' and '/etc/nv_tegra_release:ro' in finding.command


def test_hardware_is_told_from_files(tmp_path):
    for name, files, gpu, box in (('pc', PC, True, False), ('box', CONTAINER, True, True),
                                  ('nano', NANO, True, False), ('bare', BARE, False, False)):
        (tmp_path / name).mkdir()
        system = Machine(tmp_path / name, files)
        assert hardware.has_gpu(system) == gpu and hardware.in_container(system) == box
    system = Machine(tmp_path, PC)
    assert hardware.driver_release(system) == '535.183.01'
    (tmp_path / 'root/proc/driver/nvidia/version').write_text(
        'NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n')
    assert hardware.driver_release(system) == '580.65.06'
