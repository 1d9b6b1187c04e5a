"""Package yolojet_ros for colcon (ament_python) and for pip."""

from glob import glob
import os

from setuptools import find_packages, setup

NAME = 'yolojet_ros'


def shared(folder, pattern='*'):
    """Return files of a folder with the place where they are installed."""
    return (os.path.join('share', NAME, folder),
            sorted(filter(os.path.isfile, glob(os.path.join(folder, pattern)))))


setup(
    name=NAME,
    version='0.1.0',
    description='YOLOv8 detection and tracking for ROS 2, on TensorRT where there is a GPU',
    author='yolojet_ros maintainers',
    maintainer='yolojet_ros maintainers',
    maintainer_email='maintainers@yolojet-ros.example',
    license='MIT',
    python_requires='>=3.8',
    packages=find_packages(include=[NAME, NAME + '.*']),
    package_data={NAME: ['py.typed'], NAME + '.inference.cuda': ['*.cu', '*.cuh'],
                  NAME + '.ros': ['*.xml']},
    zip_safe=False,
    install_requires=['setuptools'],
    # Exact versions for ./yolojet are in requirements/train.txt.
    extras_require={
        'profile': ['matplotlib', 'nvidia-ml-py', 'psutil'],
        'train': ['onnx', 'onnxslim', 'pycocotools', 'rosbags', 'torch'],
        'test': ['hypothesis', 'pytest', 'pytest-timeout'],  # pytest: what makes colcon test run
    },
    data_files=[
        ('share/ament_index/resource_index/packages', ['resource/' + NAME]),
        ('share/' + NAME, ['package.xml']),
        shared('config'),
        shared('config/profiles'),
        # A second time where users find it: for the environment of their own camera.
        ('share/' + NAME + '/config', ['yolojet_ros/ros/fastdds.xml']),
        shared('deploy/sros2'),
        shared('engines/demo'),
        shared('launch', '*.launch.py'),
        # ros2 run and launch look for executables here; console_scripts lie in bin/.
        ('lib/' + NAME, sorted(glob('scripts/*'))),
    ],
    entry_points={'console_scripts': ['yolojet = yolojet_ros.__main__:main']},
)
