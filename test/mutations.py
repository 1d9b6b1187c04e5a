"""Broken files from good ones, always the same for a seed."""

from __future__ import annotations

import copy
import os

import pytest

from yolojet_ros.core.errors import UserError

_VALUES = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -2**63, 10**30, 0.5, -0.0, 1e308, float('nan'),
    float('inf'), '', ' ', 'x', 'no', '1', '-1', '1e999', 'nan', '\n', 'a\nb', '\x1b[2J', '\0',
    '\u202e', 'ü' * 30, 'x' * 5000, '(', '[' * 50, '{0: 1}', "{0: 'a'}", "['a', 'b']", '[0]',
    '__import__("os")', '../../x', '/dev/null', [], {}, [None], ['', 0], [[[]]], {'': {}},
    {'a': 1}, [1, 2, 3], ['x'] * 50)
_BYTES = (b'\0', b'\xff', b'\xc3', b'"', b'{', b'}', b'[', b']', b':', b',', b'-', b'\n', b'\t',
          b'&a ', b'*a ', b'!!int ', b'!!python/object:os ', b'? ', b'| ', b'1', b'e9', b'null',
          b'2020-13-40', b'0x', b'.inf', b'\x1b', b'\xe2\x80\xae')


def count(full):
    """Return how many mutations to try: a tenth, and all with YOLOJET_MUTATIONS=full."""
    return full if os.environ.get('YOLOJET_MUTATIONS') == 'full' else full // 10


def mutate_bytes(rng, data, pieces=_BYTES):
    """Flip, insert, delete, repeat or cut off some bytes."""
    data = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        at, length = int(rng.integers(len(data) + 1)), int(rng.integers(1, 9))
        kind = rng.integers(6)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[at:at] = pieces[int(rng.integers(len(pieces)))]
        elif kind == 2:
            del data[at:at + length]
        elif kind == 3:
            data[at:at] = data[at:at + length]
        elif kind == 4:
            data[at:at + length] = rng.bytes(length)
        elif rng.random() < 0.3:
            del data[at:]
    return bytes(data)


def mutate_tree(rng, tree):
    """Replace, remove, rename or add some values of nested dicts and lists."""
    tree = copy.deepcopy(tree)
    for _ in range(int(rng.integers(1, 4))):
        places = list(_places(tree))
        if not places:
            break
        holder, key = places[int(rng.integers(len(places)))]
        kind, value = rng.integers(6), copy.deepcopy(_VALUES[int(rng.integers(len(_VALUES)))])
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[str(value)[:30]] = holder.pop(key)
        elif kind == 2:
            holder[key] = [holder[key]]
        elif kind == 3:
            holder[key] = {'x': holder[key]}
        else:
            holder[key] = value
    return tree


def _places(tree):
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield tree, key
        if isinstance(value, (dict, list)):
            yield from _places(value)


def refused(function, *arguments):
    """
    Call a function that may refuse what it is given; return whether it did.

    Fails the test if it raises anything but a UserError of one sentence.
    """
    try:
        function(*arguments)
    except UserError as error:
        text = str(error)
        assert '\n' not in text and 20 < len(text) < 1500, text[:2000]
        return True
    except Exception as error:
        pytest.fail(f'{type(error).__name__}: {str(error)[:300]}')
    return False
