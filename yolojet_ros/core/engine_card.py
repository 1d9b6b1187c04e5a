"""What a TensorRT engine file says of itself: the JSON file beside it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
import hashlib
import json
from pathlib import Path
import shlex
from typing import Any, Dict, List, Optional, Tuple, Union

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.files import atomic_path, read_text
from yolojet_ros.core.records import read_record
from yolojet_ros.core.text import one_line


_MAX_BYTES = 16 << 20
_VERIFIED = ('images', 'score_error', 'box_error_px', 'matched', 'sure', 'passed')


@dataclass(frozen=True)
class TensorFacts:
    """An input or output of an engine; -1 in `shape` is dynamic."""

    name: str
    input: bool
    dtype: str
    shape: List[int]


@dataclass(frozen=True)
class EngineCard:
    """
    Where an engine comes from and where it runs.

    engine_sha256, onnx_sha256: of the two files
    onnx: path of the model as it was given to the builder
    metadata: of the ONNX file (names, stride, imgsz, task)
    tensors: every input and output
    tensorrt: version, e.g. '8.6.0'
    gpu, compute_capability, driver: e.g. 'Orin', '8.7', '12020'
    l4t: release of Jetson Linux, None elsewhere
    precision: 'fp32', 'fp16' or 'int8'; workspace_bytes: limit of the builder
    command: arguments of `yolojet` that build this engine again
    plugins: libraries that it needs
    calibration_sha256: of the calibration data, None if there was none
    build_seconds, built_at: duration, and UTC time in ISO 8601
    verification: what engine.verify found
    latency_ms: median and p99 of one run on the GPU that built it
    device_memory_bytes: scratch memory of one execution context
    other_precision: layers that do not run in the asked precision
    shared_profile: whether all execution contexts can use the same optimization profile
    """

    engine_sha256: str
    onnx: str
    onnx_sha256: str
    metadata: Dict[str, str]
    tensors: List[TensorFacts]
    tensorrt: str
    gpu: str
    compute_capability: str
    driver: str
    l4t: Optional[str]
    precision: str
    profile: str
    workspace_bytes: int
    batch: int
    command: List[str]
    plugins: List[str] = field(default_factory=list)
    calibration_sha256: Optional[str] = None
    build_seconds: float = 0.0
    built_at: str = ''
    verification: Dict[str, Any] = field(default_factory=dict)
    latency_ms: Dict[str, float] = field(default_factory=dict)
    device_memory_bytes: int = 0
    other_precision: List[str] = field(default_factory=list)
    shared_profile: bool = False

    @staticmethod
    def path(engine: Union[str, Path]) -> Path:
        """Return where the card of an engine lies: E.engine.json beside E.engine."""
        engine = Path(engine)
        return engine.with_name(engine.name + '.json')

    @classmethod
    def load(cls, engine: Union[str, Path]) -> Optional[EngineCard]:
        """
        Return the card of an engine, None if there is none.

        :raises UserError: if it cannot be read.
        """
        path = cls.path(engine)
        if not path.is_file():
            return None
        try:
            card = read_record(cls, json.loads(read_text(path, _MAX_BYTES)), strict=False)
            card._check()
            return card
        except (ValueError, RecursionError) as error:
            raise UserError(
                f'{path} is not an engine card ({one_line(str(error), 300)}); build the engine '
                'again with "yolojet engine build", or delete this file to load the engine '
                'without it'
            ) from error

    def _check(self) -> None:
        """:raises ValueError: where the types are right, but a value cannot be used."""
        if any('\n' in word or '\0' in word for word in self.command + self.plugins):
            raise ValueError('command or plugins have a word of more than one line')
        found = self.verification
        numbers = [found.get(key) for key in _VERIFIED]
        if found and 'skipped' not in found and not all(
                isinstance(number, (int, float)) for number in numbers):
            raise ValueError(f'verification has no numbers for {", ".join(_VERIFIED)}')

    def save(self, engine: Union[str, Path]) -> None:
        """Write the card beside its engine."""
        with atomic_path(self.path(engine)) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=1) + '\n', encoding='utf-8')

    @property
    def rebuild_command(self) -> str:
        """Return the shell command that builds this engine again."""
        return 'yolojet ' + ' '.join(shlex.quote(word) for word in self.command)

    def check_model(
        self, engine: Union[str, Path], onnx: Union[str, Path], onnx_sha256: str,
    ) -> None:
        """
        Compare with the model that the engine is taken for.

        :param engine, onnx: paths of the two files
        :param onnx_sha256: of the model as it is now
        :raises UserError: if the engine is another model's, with the command that rebuilds it.
        """
        if self.onnx_sha256 != onnx_sha256:
            raise UserError(
                f'{Path(engine).name} was not built from {Path(onnx).name} as it is now; build it '
                f'again with: {self.rebuild_command_for(engine, onnx)}')

    def rebuild_command_for(self, engine: Union[str, Path], onnx: Union[str, Path]) -> str:
        """Return the shell command that builds this engine again, for files at other places."""
        words = list(self.command)
        for option, path in (('--onnx', onnx), ('--out', engine)):
            if option in words[:-1]:
                words[words.index(option) + 1] = str(path)
            else:
                words += [option, str(path)]
        return 'yolojet ' + ' '.join(shlex.quote(word) for word in words)

    def check(
        self, engine: str, tensorrt: str, gpu: str, compute_capability: Tuple[int, int],
        sha256: str,
    ) -> None:
        """
        Compare with what is here, before TensorRT sees the engine.

        :param engine: file name, for the message
        :param tensorrt, gpu, compute_capability: of this machine
        :param sha256: of the engine file
        :raises UserError: in one sentence, what differs and the command that rebuilds.
        """
        here = '.'.join(str(number) for number in compute_capability)
        if release(self.tensorrt) != release(tensorrt):
            found = f'was built with TensorRT {self.tensorrt}, but this is TensorRT {tensorrt}'
        elif self.compute_capability != here:
            found = (f'was built on {self.gpu} (compute capability {self.compute_capability}), '
                     f'but this is {gpu} ({here})')
        elif self.engine_sha256 != sha256:
            found = 'is not the file that its .json describes (half copied, or overwritten)'
        else:
            return
        raise UserError(f'{engine} {found}; build it again with: {self.rebuild_command}')


def release(version: str) -> Tuple[str, ...]:
    """Return major, minor and patch of a TensorRT version: an engine needs all three."""
    return tuple(version.split('.')[:3])


def sha256(path: Union[str, Path]) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        for block in iter(lambda: file.read(1 << 20), b''):
            digest.update(block)
    return digest.hexdigest()
