"""Probes of NVIDIA's driver and libraries, by ctypes alone."""

from __future__ import annotations

import ctypes
from ctypes import byref, c_int, c_size_t
from typing import Dict, List

from yolojet_ros.operate.doctor.probes.tell import step, tell

_CAPABILITY = (75, 76)  # CUdevice_attribute: major, minor


def cuda() -> None:
    """Tell what libcuda says: its CUDA version, the status of cuInit, and the GPUs."""
    step('load libcuda.so.1')
    try:
        driver = ctypes.CDLL('libcuda.so.1')
    except OSError as error:
        tell(error=str(error))
        return
    version = c_int()
    if driver.cuDriverGetVersion(byref(version)) == 0:
        tell(driver=version.value)
    step('cuInit')
    status = driver.cuInit(0)
    tell(init=status)
    if status == 0:
        step('look at the GPUs')
        tell(gpus=_gpus(driver))


def _gpus(driver: ctypes.CDLL) -> List[Dict]:
    count, gpus = c_int(), []
    driver.cuDeviceGetCount(byref(count))
    for index in range(count.value):
        device, name, memory = c_int(), ctypes.create_string_buffer(256), c_size_t()
        driver.cuDeviceGet(byref(device), index)
        driver.cuDeviceGetName(name, len(name), device)
        driver.cuDeviceTotalMem_v2(byref(memory), device)
        numbers = []
        for attribute in _CAPABILITY:
            number = c_int()
            driver.cuDeviceGetAttribute(byref(number), attribute, device)
            numbers.append(number.value)
        gpus.append({'name': name.value.decode(errors='replace'), 'capability': numbers,
                     'memory': memory.value})
    return gpus


def libraries(*names: str) -> None:
    """Load libraries, each by every file name; tell the error of those that cannot be loaded."""
    loaded, errors = {}, {}
    for name in names:
        step(f'load {name}')
        try:
            library = ctypes.CDLL(name)
            loaded[name] = _version(library)
        except OSError as error:
            errors[name] = str(error)
        tell(loaded=loaded, errors=errors)


def _version(library: ctypes.CDLL) -> int:
    """Return the number that CUDA's runtime and cuDNN call their version, 0 of others."""
    if hasattr(library, 'cudaRuntimeGetVersion'):
        number = c_int()
        library.cudaRuntimeGetVersion(byref(number))
        return number.value
    if hasattr(library, 'cudnnGetVersion'):
        library.cudnnGetVersion.restype = c_size_t
        return library.cudnnGetVersion()
    return 0
