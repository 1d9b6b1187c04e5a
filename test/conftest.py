"""What all tests share."""

from pathlib import Path

from hypothesis import HealthCheck, settings
import pytest

# Examples are timed on machines of any speed and load; the run as a whole is limited instead.
settings.register_profile(
    'project', deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile('project')

# What runs on a robot: its tests are those of `colcon test`, which has minutes and what
# package.xml declares. Engines, training and packaging are left to ./yolojet test.
ON_ROBOT = ('core', 'inference_onnxruntime', 'launch', 'layers', 'nodes', 'ros', 'sim', 'sources',
            'tracking')
collect_ignore = []


def pytest_configure(config):
    if config.getoption('junitprefix') == 'yolojet_ros':  # as colcon starts it
        wanted = tuple(f'test_{part}' for part in ON_ROBOT)
        collect_ignore.extend(path.name for path in Path(__file__).parent.glob('test_*.py')
                              if not path.name.startswith(wanted))


@pytest.fixture(scope='session')
def library(tmp_path_factory):
    """Return the CUDA kernels, compiled for the host once in a run."""
    import cuda_on_host
    if cuda_on_host.COMPILER is None:
        pytest.skip('g++ is not installed')
    return cuda_on_host.build(tmp_path_factory.mktemp('kernels'))
