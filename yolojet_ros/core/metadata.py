"""
Values in a model's metadata, which are Python literals, read without Python's parser.

Anybody may have written them, and long or deeply nested expressions crash the
interpreters up to Python 3.10.
"""

from __future__ import annotations

import ast
import re
from typing import Dict, List, Tuple

_STRING = r"""'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*\""""
# An item of a flat dict {0: 'a'} or list ['a']: a key, a string or a plain word, a comma.
_ITEM = re.compile(rf'\s*(?:(\d{{1,9}})\s*:)?\s*({_STRING}|[\w.-]{{1,200}})\s*(,|$)')
_NUMBER = re.compile(r'\s*(-?\d{1,9})(?:\.0*)?\s*')
_BRACKETS = {'{': '}', '[': ']', '(': ')'}


def read_names(text: str) -> Tuple[str, ...]:
    """
    Return the names of a dict {0: 'a', 1: 'b'} with all keys from 0 on, or of a list.

    :raises ValueError: if the text is neither.
    """
    text = text.strip()
    if len(text) < 2 or _BRACKETS.get(text[0]) != text[-1]:
        raise ValueError('neither a dict nor a list')
    inside, position = text[1:-1].rstrip(), 0
    keyed = text[0] == '{'
    found: Dict[int, str] = {}
    while position < len(inside):
        item = _ITEM.match(inside, position)
        if item is None or (item[1] is not None) != keyed:
            raise ValueError(f'no name at character {position + 1}')
        found[int(item[1]) if keyed else len(found)] = _text(item[2])
        position = item.end()
    names: List[str] = [found[index] for index in range(len(found)) if index in found]
    if len(names) != len(found):
        raise ValueError(f'{len(found)} names, but not with the keys 0 to {len(found) - 1}')
    return tuple(names)


def read_numbers(text: str) -> Tuple[int, ...]:
    """
    Return the whole numbers of '32', '32.0', '[192, 320]' or '(192, 320)'.

    :raises ValueError: if the text is anything else.
    """
    text = text.strip()
    if len(text) >= 2 and _BRACKETS.get(text[0]) == text[-1]:
        text = text[1:-1]
    numbers = [_NUMBER.fullmatch(part) for part in text[:100].split(',')]
    if not all(numbers) or len(text) > 100:
        raise ValueError('no whole numbers')
    return tuple(int(number[1]) for number in numbers)


def _text(token: str) -> str:
    # One string literal cannot be nested.
    return ast.literal_eval(token) if token[0] in '\'"' else token
