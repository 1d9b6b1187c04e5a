"""The manifest of a model version: what a signature is over."""

from __future__ import annotations

from dataclasses import asdict, dataclass
import json
from pathlib import Path
import re
from typing import Any, List, Tuple

from yolojet_ros.core.errors import UserError
from yolojet_ros.core.records import read_record
from yolojet_ros.core.text import one_line, shown

MANIFEST, SIGNATURE = 'manifest.json', 'manifest.sig'
MAX_BYTES = 1 << 20
_FORMAT = 'yolojet-model-1'
_MAX_FILES, _MAX_FILE_BYTES = 32, 1 << 33  # the largest file of a ustar archive
_MAX_SEQUENCE = 1 << 53  # whole numbers that every reader of JSON takes
_VERSION = re.compile(r'[0-9A-Za-z][0-9A-Za-z.+_-]{0,63}')
_FILE = re.compile(r'[0-9A-Za-z_][0-9A-Za-z.+_-]{0,99}')
_SHA256 = re.compile('[0-9a-f]{64}')
# Engines are built on the robot: one that came along would be run unseen.
_OWN_NAMES = (MANIFEST, SIGNATURE)
_OWN_SUFFIXES = ('.engine', '.engine.json')


@dataclass(frozen=True)
class FileEntry:
    """A file of a version: its name, its size in bytes and its SHA-256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """
    What a version says of itself.

    sequence: grows with every version of a fleet, whatever it is called
    model: the .onnx among `files`
    task, classes: what it detects, for a list
    created: UTC, ISO 8601
    """

    format: str
    name: str
    version: str
    sequence: int
    created: str
    model: str
    task: str
    classes: Tuple[str, ...]
    files: Tuple[FileEntry, ...]

    @classmethod
    def make(cls, name: str, version: str, sequence: int, created: str, model: str, task: str,
             classes: Tuple[str, ...], files: Tuple[FileEntry, ...]) -> Manifest:
        """
        Return a manifest.

        :raises UserError: naming the value that cannot be used.
        """
        found = cls(_FORMAT, name, version, sequence, created, model, task, classes, files)
        try:
            found._check()
            cls.parse(found.data(), name)
        except ValueError as error:
            raise UserError(f'the version cannot be described: {error}') from None
        return found

    @classmethod
    def parse(cls, data: bytes, source: str) -> Manifest:
        """
        Read a manifest that anybody may have written.

        :param source: what it belongs to, for messages
        :raises UserError: naming what is wrong.
        """
        try:
            text = data.decode('utf-8')
            found = read_record(cls, json.loads(
                text, parse_int=_whole, parse_float=_refuse, parse_constant=_refuse))
            found._check()
            # A second reading of the same bytes, by repeated keys, say, must not be possible.
            if found.data() != data:
                raise ValueError('it is not written in the canonical form')
        except (ValueError, RecursionError) as error:
            raise UserError(
                f'the manifest of {source} cannot be used ({one_line(str(error), 200)}); make it '
                'again with "yolojet model-store sign"') from None
        return found

    def data(self) -> bytes:
        """Return the canonical bytes: JSON with sorted keys, without spaces, in UTF-8."""
        return json.dumps(
            asdict(self), sort_keys=True, separators=(',', ':'), ensure_ascii=False
        ).encode('utf-8')

    @property
    def size(self) -> int:
        """Return how many bytes the files have together."""
        return sum(entry.size for entry in self.files)

    @property
    def engine_names(self) -> List[str]:
        """Return the names of the engine that may be built beside the model, and of its card."""
        engine = Path(self.model).stem + '.engine'
        return [engine, engine + '.json']

    def _check(self) -> None:
        """:raises ValueError: where the types are right, but a value cannot be used."""
        if self.format != _FORMAT:
            raise ValueError(f'its format is {shown(self.format)}, not {_FORMAT}')
        check_version(self.version)
        if not 0 < self.sequence < _MAX_SEQUENCE:
            raise ValueError(f'sequence is {self.sequence}, not a number from 1 to 2^53')
        names = [entry.name for entry in self.files]
        if not 0 < len(names) <= _MAX_FILES or len(set(names)) < len(names):
            raise ValueError(f'it lists {len(names)} files; 1 to {_MAX_FILES} different ones '
                             'are expected')
        for entry in self.files:
            check_file_name(entry.name)
            if not (0 <= entry.size < _MAX_FILE_BYTES and _SHA256.fullmatch(entry.sha256)):
                raise ValueError(f'size or sha256 of {entry.name} is none')
        if self.model not in names or not self.model.endswith('.onnx'):
            raise ValueError(f'model is {shown(self.model)}, none of its .onnx files')
        for text in self.classes:
            if not text.isprintable() or len(text) > 200:
                raise ValueError(f'{shown(text)} is no name of a class')


def check_version(version: str) -> None:
    """:raises ValueError: if a version could not be the name of a folder."""
    if not _VERSION.fullmatch(version):
        raise ValueError(f'version is {shown(version)}; up to 64 letters, digits and .+_- are '
                         'expected, as in 1.2.0')


def check_file_name(name: str) -> None:
    """:raises ValueError: if a file could leave its folder, or be taken for one of ours."""
    if not _FILE.fullmatch(name):
        raise ValueError(f'a file is called {shown(name)}; up to 100 letters, digits and .+_- '
                         'are expected, without a folder')
    if name in _OWN_NAMES or name.endswith(_OWN_SUFFIXES):
        raise ValueError(f'{name} cannot be in a version; engines are built on the robot, with '
                         '"activate --build"')


def _whole(text: str) -> int:
    if len(text) > 20:  # Python takes long for numbers of many digits, or refuses them
        raise ValueError(f'a number of {len(text)} digits')
    return int(text)


def _refuse(text: str) -> Any:
    raise ValueError(f'{shown(text)} is no whole number')
