"""The probe of TensorRT: import it and make a builder, both of which have ended processes."""

from __future__ import annotations

from typing import List

from yolojet_ros.operate.doctor.probes.tell import step, tell


def tensorrt() -> None:
    """Tell the version, what its log says while a builder is made, and whether there is one."""
    step('import tensorrt')
    try:
        import tensorrt as trt
    except Exception as error:  # its loader raises many kinds
        tell(error=f'{type(error).__name__}: {error}',
             missing=isinstance(error, ModuleNotFoundError) and error.name == 'tensorrt')
        return
    tell(version=str(getattr(trt, '__version__', '?')))
    log: List[str] = []

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity, message) -> None:
            # By name, because the enum of some versions has no order.
            if str(severity).rpartition('.')[2] in ('WARNING', 'ERROR', 'INTERNAL_ERROR'):
                log.append(str(message))
                tell(log=log)

    step('make a builder')
    try:
        builder = trt.Builder(Log())
    except Exception as error:
        tell(builder=f'{type(error).__name__}: {error}')
        return
    tell(builder='' if builder else 'it is None')
