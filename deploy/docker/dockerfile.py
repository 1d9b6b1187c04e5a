"""Read a Dockerfile as far as the ones here go: stages of instructions with their variables."""

from __future__ import annotations

from dataclasses import dataclass, field
import json
from pathlib import Path
import re
import shlex
from typing import Dict, List, Optional

INSTRUCTIONS = ('ADD', 'ARG', 'CMD', 'COPY', 'ENTRYPOINT', 'ENV', 'FROM', 'HEALTHCHECK', 'LABEL',
                'RUN', 'SHELL', 'USER', 'VOLUME', 'WORKDIR')
_VARIABLE = re.compile(r'\$(?:\{(\w+)\}|(\w+))')


class DockerfileError(Exception):
    """Say in one sentence what of a Dockerfile cannot be read."""


@dataclass
class Instruction:
    """One instruction, its continued lines joined."""

    line: int
    name: str
    text: str

    def words(self) -> List[str]:
        """Return the words of the exec form (a JSON list) or of the shell form."""
        if self.text.startswith('['):
            return json.loads(self.text)
        return shlex.split(self.text)

    def command(self, shell: List[str]) -> List[str]:
        """Return the program and arguments to run; the shell form goes through `shell`."""
        return json.loads(self.text) if self.text.startswith('[') else [*shell, self.text]


@dataclass
class Stage:
    """What follows a FROM."""

    base: str
    name: str
    instructions: List[Instruction] = field(default_factory=list)


def read_stages(path: Path, arguments: Optional[Dict[str, str]] = None) -> List[Stage]:
    """
    Return the stages of a Dockerfile.

    :param arguments: build arguments, which replace the defaults of ARG before the first FROM
    :raises DockerfileError: if an instruction is not known or a variable of FROM is not set.
    """
    given = dict(arguments or {})
    stages: List[Stage] = []
    known: Dict[str, str] = {}
    for instruction in _instructions(path):
        if instruction.name == 'FROM':
            words = expand(instruction.text, known, instruction.line).split()
            if len(words) not in (1, 3) or (len(words) == 3 and words[1].upper() != 'AS'):
                raise DockerfileError(f'line {instruction.line}: FROM takes IMAGE [AS NAME]')
            stages.append(Stage(words[0], words[2] if len(words) == 3 else str(len(stages))))
        elif stages:
            stages[-1].instructions.append(instruction)
        elif instruction.name == 'ARG':
            name, _, default = instruction.text.partition('=')
            known[name] = given.get(name, default)
        else:
            raise DockerfileError(f'line {instruction.line}: {instruction.name} before FROM')
    return stages


def assignments(text: str) -> Dict[str, str]:
    """Return what ENV or ARG sets: NAME=VALUE ..."""
    return dict(word.split('=', 1) for word in shlex.split(text) if '=' in word)


def expand(text: str, values: Dict[str, str], line: int) -> str:
    """Replace $NAME and ${NAME}."""
    def value(match: re.Match) -> str:
        name = match.group(1) or match.group(2)
        if name not in values:
            raise DockerfileError(f'line {line}: the variable {name} is not set')
        return values[name]
    return _VARIABLE.sub(value, text)


def _instructions(path: Path) -> List[Instruction]:
    found: List[Instruction] = []
    pending = ''
    start = 0
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.lstrip().startswith('#') or not (line.strip() or pending):
            continue
        start = start if pending else number
        pending += line.strip() if not pending else line.lstrip()
        if pending.endswith('\\'):
            pending = pending[:-1]
            continue
        name, _, text = pending.partition(' ')
        if name not in INSTRUCTIONS:
            raise DockerfileError(f'line {start}: {name} is not known here')
        found.append(Instruction(start, name, text.strip()))
        pending = ''
    if pending:
        raise DockerfileError(f'line {start}: {pending.split()[0]} does not end')
    return found
