"""Readers of the machine, on lines and trees as Jetsons give them, and on this machine."""

import ctypes
import os
from pathlib import Path
import shutil
import subprocess
import sys
import threading
import time

import pytest

from yolojet_ros.operate.samplers.machine import Machine, this_machine
from yolojet_ros.operate.samplers.nvml import reasons
from yolojet_ros.operate.samplers.process import ProcessReader
from yolojet_ros.operate.samplers.recorder import Recorder
from yolojet_ros.operate.samplers.sample import merged, Sample
from yolojet_ros.operate.samplers.sysfs import SysfsReader
from yolojet_ros.operate.samplers.tegrastats import parse, TegrastatsReader

from jetson_trees import orin_tree, write_tree

MIB = 2**20
# As "Tegrastats Utility" of NVIDIA's guide describes them, with the words of each board.
LINES = {
    'Nano, JetPack 4': (
        'RAM 1903/3964MB (lfb 2x512kB) SWAP 63/1982MB (cached 6MB) IRAM 0/252kB(lfb 252kB) '
        'CPU [27%@1479,20%@1479,20%@921,off] EMC_FREQ 6%@1600 GR3D_FREQ 37%@921 '
        'VIC_FREQ 0%@140 APE 25 PLL@27.5C CPU@30C PMIC@100C GPU@29.5C AO@36.5C '
        'thermal@29.75C POM_5V_IN 3256/3100 POM_5V_GPU 80/80 POM_5V_CPU 760/740',
        Sample(36.5, 29.5, 30.0, 3.256, 'board', 37.0, None, None, 921.0, 1293.0,
               16.75, None, None, 1903 * MIB, 3964 * MIB, 63 * MIB)),
    'AGX Xavier, JetPack 5': (
        'RAM 2583/31919MB (lfb 6826x4MB) SWAP 0/15959MB (cached 0MB) CPU [7%@1190,1%@1190,'
        'off,off,off,off,off,off] EMC_FREQ 0%@2133 GR3D_FREQ 0%@318 APE 150 MTS fg 0% bg 0% '
        'AO@36C GPU@36C Tdiode@39.25C PMIC@100C AUX@36C CPU@37C thermal@36.4C Tboard@37C '
        'GPU 10/5 CPU 311/311 SOC 932/932 CV 0/0 VDDRQ 155/155 SYS5V 1737/1737',
        Sample(39.25, 36.0, 37.0, 3.145, 'board', 0.0, None, None, 318.0, 1190.0,
               1.0, None, None, 2583 * MIB, 31919 * MIB, 0)),
    'AGX Orin, JetPack 6': (
        '11-21-2025 08:49:48 RAM 13983/62780MB (lfb 424x4MB) SWAP 126/31390MB (cached 0MB) CPU '
        '[90%@2201,100%@2201] EMC_FREQ 1%@2133 GR3D_FREQ 14%@[407,612] VIC_FREQ 115 '
        'NVDLA0_FREQ @1600 APE 174 CV0@-256C CPU@77.281C Tboard@62C SOC2@70C gpu@69.125C '
        'tj@77.5C VDD_GPU_SOC 3150mW/2971mW VDD_CPU_CV 14312mW/12415mW VIN_SYS_5V0 '
        '4968mW/5048mW NC 0mW/0mW VDDQ_VDD2_1V8AO 1091mW/1091mW',
        Sample(77.5, 69.125, 77.281, 22.43, 'board', 14.0, None, None, 612.0, 2201.0,
               95.0, None, None, 13983 * MIB, 62780 * MIB, 126 * MIB)),
    'Thor, JetPack 7, the GPU idle': (
        '04-21-2026 15:50:52 RAM 105265/125772MB (lfb 34x4MB) CPU [0%@972,8%@972] EMC_FREQ '
        '0%@2750 GR3D_FREQ @[314,314,314] NVENC0_FREQ @314 VIC off OFA_FREQ @315 PVA0_FREQ off '
        'APE 300 cpu@37.343C tj@38.875C soc012@37.468C gpu@38.5C soc345@37.406C VDD_GPU '
        '1962mW/1962mW VDD_CPU_SOC_MSS 5887mW/5887mW VIN_SYS_5V0 5635mW/5635mW VIN '
        '19780mW/19780mW',
        Sample(38.875, 38.5, 37.343, 19.78, 'board', None, None, None, 314.0, 972.0,
               4.0, None, None, 105265 * MIB, 125772 * MIB)),
    'Thor, JetPack 7.2, without the GPU': (
        '07-02-2026 13:45:44 RAM 36529/125749MB (lfb 12x4MB) SWAP 11/4096MB (cached 9MB) CPU '
        '[2%@972,1%@972] cpu@60.406C tj@63.281C soc012@58.468C VDD_GPU '
        '37528mW/37528mW/37528mW VDD_CPU_SOC_MSS 18961mW/18961mW/18961mW VIN_SYS_5V0 '
        '18331mW/18331mW/18331mW',
        Sample(63.281, None, 60.406, 74.82, 'board', None, None, None, None, 972.0,
               1.5, None, None, 36529 * MIB, 125749 * MIB, 11 * MIB))}


@pytest.mark.parametrize('board', LINES)
def test_a_line_of_tegrastats_is_read(board):
    line, expected = LINES[board]
    assert parse(line) == expected
    assert parse(line + '\n') == expected


@pytest.mark.parametrize('line', ['', 'tegrastats: permission denied', 'RAM x/yMB CPU []',
                                  'GR3D_FREQ off CPU [off,off]', 'cpu@C VIN mW/mW'])
def test_a_line_that_tells_nothing_gives_nothing(line):
    assert parse(line) == Sample()


def test_a_running_tegrastats_is_followed_and_ended(tmp_path):
    program = tmp_path / 'tegrastats'
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\n'
                       f'while :; do echo "{LINES["AGX Orin, JetPack 6"][0]}"; sleep 0.05; done\n')
    program.chmod(0o755)
    reader = TegrastatsReader(100, str(program))
    end = time.monotonic() + 10
    while reader.read() == Sample() and time.monotonic() < end:
        time.sleep(0.01)
    assert reader.read().power_w == 22.43
    process = reader._process
    reader.close()
    assert process.poll() is not None
    assert (tmp_path / 'arguments').read_text() == '--interval 100\n'
    missing = TegrastatsReader(100, str(tmp_path / 'none'))
    assert missing.read() == Sample()
    missing.close()


# ---- files

def test_the_files_of_an_orin_are_read(tmp_path):
    reader = SysfsReader(orin_tree(tmp_path))
    assert reader.model == 'NVIDIA Jetson AGX Orin Developer Kit'
    found = reader.read()
    assert found == Sample(
        temperature_c=50.5, gpu_temperature_c=47.0, cpu_temperature_c=49.5, power_w=12.617,
        power_of='board', gpu_percent=43.2, gpu_clock_mhz=1300.5, cpu_clock_mhz=1500.0,
        throttling=())


def test_heat_over_current_and_slowed_clocks_are_told(tmp_path):
    reader = SysfsReader(orin_tree(tmp_path))
    assert reader.read().throttling == ()
    write_tree(tmp_path, {
        'sys/class/thermal/thermal_zone0/temp': '99500',
        'sys/class/thermal/cooling_device1/cur_state': '3',
        'sys/class/hwmon/hwmon3/oc3_event_cnt': '45'})
    assert reader.read().throttling == (
        'cpu-thermal is at 99.5 C, its limit is 99 C',
        'cpufreq-cpu0 is slowed down against heat (step 3)',
        'over-current of an instant, 8 times since the last look')
    write_tree(tmp_path, {
        'sys/class/thermal/thermal_zone0/temp': '98999',
        'sys/class/thermal/cooling_device1/cur_state': '0'})
    assert reader.read().throttling == (), 'what has passed is no more'


def test_a_rail_that_cannot_be_read_makes_no_smaller_sum(tmp_path):
    root = orin_tree(tmp_path)
    reader = SysfsReader(root)
    (root / 'sys/class/hwmon/hwmon1/curr2_input').unlink()
    assert reader.read().power_w is None and reader.read().power_of is None


def test_the_files_of_a_nano_and_of_a_pc_are_read(tmp_path):
    nano = write_tree(tmp_path / 'nano', {
        'sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/rail_name_0': 'POM_5V_IN',
        'sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power0_input': '3256',
        'sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/rail_name_1': 'POM_5V_GPU',
        'sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power1_input': '80',
        'sys/devices/gpu.0/load': '370',
        'sys/class/devfreq/57000000.gpu/cur_freq': '921600000',
        'sys/class/thermal/thermal_zone0/type': 'PMIC-Die',
        'sys/class/thermal/thermal_zone0/temp': '100000',
        'sys/class/thermal/thermal_zone1/type': 'GPU-therm',
        'sys/class/thermal/thermal_zone1/temp': '29500'})
    found = SysfsReader(nano).read()
    assert (found.power_w, found.gpu_percent, found.gpu_clock_mhz) == (3.256, 37.0, 921.6)
    assert (found.temperature_c, found.gpu_temperature_c) == (29.5, 29.5)
    count = 'sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count'
    pc = write_tree(tmp_path / 'pc', {
        'sys/class/hwmon/hwmon0/name': 'k10temp', 'sys/class/hwmon/hwmon0/temp1_input': '61250',
        'sys/class/thermal/thermal_zone0/type': 'x86_pkg_temp',
        'sys/class/thermal/thermal_zone0/temp': '58000',
        'sys/class/thermal/thermal_zone0/trip_point_0_type': 'passive',
        'sys/class/thermal/thermal_zone0/trip_point_0_temp': '0', count: '7'})
    reader = SysfsReader(pc)
    found = reader.read()
    assert (found.cpu_temperature_c, found.power_w, found.throttling) == (61.25, None, ())
    write_tree(pc, {count: '9'})
    assert reader.read().throttling == ('the CPU was too hot, 2 times since the last look',)


def test_a_machine_without_any_file_tells_nothing(tmp_path):
    assert SysfsReader(tmp_path).read() == Sample()
    write_tree(tmp_path, {'sys/class/thermal/thermal_zone0/type': 'cpu-thermal',
                          'sys/class/thermal/thermal_zone0/temp': 'no number'})
    assert SysfsReader(tmp_path).read() == Sample(throttling=())


# ---- NVML

def test_reasons_of_nvml_are_words():
    assert reasons(0x01 | 0x02 | 0x10 | 0x100) == (), 'idling and wishes are no throttling'
    assert reasons(0x04) == ('the GPU is at its power limit',)
    assert len(reasons(0x08)) == 1 and len(reasons(0x08 | 0x40)) == 1
    assert 'too hot' in reasons(0x08 | 0x40)[0]


def test_without_a_driver_nvml_reads_nothing():
    script = ('import sys\nfrom yolojet_ros.operate.samplers.nvml import NvmlReader\n'
              'reader = NvmlReader()\n'
              'print(reader.read().known(), reader.why, "pynvml" in sys.modules)\n'
              'reader.close()')
    if _loads('libnvidia-ml.so.1'):
        pytest.skip('here is a driver')
    done = _python(script)
    assert done == '{} there is no libnvidia-ml.so.1, so no NVIDIA driver False\n'


def _loads(library):
    try:
        return ctypes.CDLL(library)
    except OSError:
        return None


def _python(script, **environment):
    return subprocess.run([sys.executable, '-c', script], stdout=subprocess.PIPE, text=True,
                          cwd=Path(__file__).parents[1], check=True,
                          env={**os.environ, **environment}).stdout


def test_a_gpu_tells_what_it_can(tmp_path):
    """The real binding on a library that answers as Thor's: some values are not supported."""
    pytest.importorskip('pynvml')
    source, library = tmp_path / 'nvml.c', tmp_path / 'libnvidia-ml.so.1'
    source.write_text(_NVML)
    compiler = shutil.which('gcc') or pytest.skip('no compiler')
    subprocess.run([compiler, '-shared', '-fPIC', '-o', str(library), str(source)], check=True)
    script = ('from yolojet_ros.operate.samplers.nvml import NvmlReader\n'
              'reader, other = NvmlReader(0), NvmlReader(1)\n'
              'print(reader.read())\nprint(reader.model, reader.why)\nreader.close()\n'
              'print(reader.read().known(), other.read().known(), other.why)')
    here = {'LD_LIBRARY_PATH': str(tmp_path), 'CUDA_VISIBLE_DEVICES': '3,5'}
    done = _python(script, **here)
    sample, model, rest = done.splitlines()
    assert model == 'Recorded GPU '
    assert sample == str(Sample(
        temperature_c=61.0, gpu_temperature_c=61.0, power_w=71.25, power_of='GPU',
        gpu_clock_mhz=1410.0, throttling=('the GPU is at its power limit',)))
    assert rest.startswith('{} {} ') and rest != '{} {} ', 'device 5 is not there'
    done = _python('import sys; sys.modules["pynvml"] = None\n' + script, **here)
    assert done.splitlines()[1] == ' nvidia-ml-py is not installed'


_NVML = r'''
#include <string.h>
typedef struct { int number; } *Device;
static struct { int number; } device = {3};
int nvmlInitWithFlags(unsigned flags) { return 0; }
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return "recorded error"; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device *out) {
    if (index != 3) return 2;
    *out = (Device)&device;
    return 0;
}
int nvmlDeviceGetName(Device d, char *name, unsigned size) {
    strncpy(name, "Recorded GPU", size);
    return 0;
}
int nvmlDeviceGetTemperature(Device d, unsigned sensor, unsigned *out) { *out = 61; return 0; }
int nvmlDeviceGetPowerUsage(Device d, unsigned *out) { *out = 71250; return 0; }
int nvmlDeviceGetUtilizationRates(Device d, void *out) { return 3; }
int nvmlDeviceGetClockInfo(Device d, unsigned kind, unsigned *out) { *out = 1410; return 0; }
int nvmlDeviceGetCurrentClocksThrottleReasons(Device d, unsigned long long *out) {
    *out = 0x5;
    return 0;
}
'''


# ---- this machine, and all together

def test_this_process_and_machine_are_measured():
    psutil = pytest.importorskip('psutil')
    reader = ProcessReader()
    assert reader.read().cpu_percent is None, 'nothing was counted yet'
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    found = reader.read()
    assert found.process_cpu_percent > 0
    assert 0 < found.cpu_percent <= 100
    assert found.rss_bytes == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)
    assert 0 < found.memory_bytes < found.memory_total_bytes == psutil.virtual_memory().total
    reader.watch(2**22 + 1)  # more than there can be
    assert reader.read().rss_bytes is None and reader.read().memory_bytes > 0


def test_loads_are_those_since_the_last_look_in_whatever_thread():
    pytest.importorskip('psutil')
    reader, found = ProcessReader(), []
    reader.read()
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
    thread = threading.Thread(target=lambda: found.append(reader.read()))
    thread.start()
    thread.join()
    assert found[0].cpu_percent > 0


def test_samples_are_merged_as_what_they_say_of():
    board = Sample(temperature_c=50.0, power_w=12.0, power_of='board', throttling=('a',))
    gpu = Sample(temperature_c=60.0, gpu_percent=0.0, power_w=70.0, power_of='GPU',
                 throttling=('b', 'a'))
    both = merged([Sample(), board, gpu])
    assert (both.temperature_c, both.power_w, both.power_of) == (60.0, 12.0, 'board')
    assert both.gpu_percent == 0.0 and both.throttling == ('a', 'b')
    assert merged([Sample(), Sample()]) == Sample(), 'unknown is not none'


class _Slow:
    """A reader that takes as much of a core as it is told."""

    name = 'slow'

    def __init__(self, seconds):
        self.seconds, self.reads = seconds, 0

    def read(self):
        self.reads += 1
        end = time.thread_time() + self.seconds
        while time.thread_time() < end:
            pass
        return Sample(power_w=float(self.reads))

    def close(self):
        self.closed = True


def test_a_reader_that_costs_much_is_asked_rarely():
    slow, quick, looks = _Slow(0.02), _Slow(0), 0
    machine = Machine([slow, quick], share=0.1)
    start = time.monotonic()
    while time.monotonic() < start + 1:
        found, looks = machine.read(), looks + 1
        assert found.power_w == slow.reads, 'what it told last counts'
        time.sleep(0.01)
    # 0.02 s at 5 % of a core: every 0.4 s.
    assert 1 <= slow.reads <= 1 + (time.monotonic() - start) / 0.4
    assert quick.reads > looks / 2
    every = _Slow(0.01)
    always = Machine([every])
    always.read(), always.read()
    assert every.reads == 2
    always.close()
    assert every.closed


def test_a_recording_knows_its_phases(tmp_path):
    root = orin_tree(tmp_path)
    with Recorder(Machine([SysfsReader(root)]), 0.02) as recorder:
        with recorder.phase('calm'):
            time.sleep(0.15)
        write_tree(root, {'sys/class/hwmon/hwmon1/curr1_input': '2500',
                          'sys/class/thermal/cooling_device1/cur_state': '1'})
        with recorder.phase('busy'):
            time.sleep(0.15)
    calm, busy = recorder.use('calm'), recorder.use('busy')
    assert calm['power_w'] == {'mean': 12.617, 'max': 12.617} and calm['power_of'] == 'board'
    assert busy['power_w']['mean'] == pytest.approx(12.617 + 5, abs=0.001)
    assert not calm['throttling'] and 'cpufreq-cpu0' in busy['throttling'][0]
    assert 'gpu_memory_bytes' not in calm, 'unknown is not zero'
    rows = recorder.series()
    assert len(rows['seconds']) == len(rows['power_w']) >= 8
    assert [name for name, _, _ in rows['phases']] == ['calm', 'busy']
    assert recorder.use('never') == {}


def test_this_machine_is_put_together():
    machine = this_machine()
    machine.read()
    assert machine.name
    assert [reader.name for reader in machine.readers] == ['sysfs', 'NVML', 'psutil']
    machine.close()
