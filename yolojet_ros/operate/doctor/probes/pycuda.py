"""The probe of PyCUDA: import it, initialize it, and use a context."""

from __future__ import annotations

from yolojet_ros.operate.doctor.probes.tell import step, tell


def pycuda() -> None:
    """Tell the version, the CUDA that it was built for, and the memory of the first GPU."""
    step('import pycuda.driver')
    try:
        import pycuda
        import pycuda.driver as cuda
    except ImportError as error:
        tell(error=str(error), missing=str(error.name).startswith('pycuda')
             and isinstance(error, ModuleNotFoundError))
        return
    tell(version=str(getattr(pycuda, 'VERSION_TEXT', '?')),
         built_for=list(cuda.get_version()))
    try:
        step('cuda.init')
        cuda.init()
        step('make a context')
        context = cuda.Device(0).retain_primary_context()
        context.push()
        try:
            tell(memory=list(cuda.mem_get_info()))
        finally:  # one that is left on the stack aborts the process
            cuda.Context.pop()
            context.detach()
    except cuda.Error as error:
        tell(context=str(error))
