"""Literals of a model's metadata, good and bad."""

from hypothesis import given, strategies
import pytest

from yolojet_ros.core.metadata import read_names, read_numbers

_NAMES = strategies.lists(strategies.text(max_size=20), max_size=20)


@given(_NAMES)
def test_whatever_python_writes_is_read(names):
    assert read_names(repr(names)) == tuple(names)
    assert read_names(repr(tuple(names))) == tuple(names)
    assert read_names(repr(dict(enumerate(names)))) == tuple(names)


@pytest.mark.parametrize('text, names', [
    ('{1: "b", 0: \'a\'}', ('a', 'b')), ('[1, 2.5, x]', ('1', '2.5', 'x')), (' [ ] ', ()),
    ('{0: "it\'s, {ok}: [1]",}', ("it's, {ok}: [1]",)), ('["a" , "b",]', ('a', 'b')),
    (r"['\u00e4\\']", ('ä\\',)), ('{}', ()), ("{0: 'a'\n, 1: 'b'}", ('a', 'b'))])
def test_names(text, names):
    assert read_names(text) == names


@pytest.mark.parametrize('text', [
    '', ' ', 'x', '{', '[}', '{0: "a"', '{0: "a", 2: "b"}', '["a" "b"]', '[["a"]]', '{0: ["a"]}',
    '{"0": "a"}', '["a]', '[,]', '{0}', '[0: "a"]', '[f()]', "[b'x']", "['a' + 'b']",
    "['\\x']", '[lambda: 1]', '{-1: "a"}'])
def test_what_is_no_flat_list_or_dict_is_refused(text):
    with pytest.raises((ValueError, SyntaxError)):
        read_names(text)


@pytest.mark.parametrize('piece', [
    '-', '(', '[', '{0:', '1+', '+1j', 'not ', 'a.', '()', '[0]', "'a' ", 'lambda:', '1<'])
def test_a_million_characters_of_anything_are_refused_and_not_a_crash(piece):
    # Python's own parser ends the process on some of them, until 3.10.
    for text in (piece * (2**20 // len(piece)), f'[{piece * (2**20 // len(piece))}]'):
        with pytest.raises((ValueError, SyntaxError)):
            read_names(text)
        with pytest.raises(ValueError):
            read_numbers(text)


@pytest.mark.parametrize('text, numbers', [
    ('32', (32,)), ('32.0', (32,)), ('[192, 320]', (192, 320)), ('(192,320)', (192, 320)),
    ('{1}', (1,)), ('-32', (-32,)), (' [ 640 ] ', (640,))])
def test_numbers(text, numbers):
    assert read_numbers(text) == numbers


@pytest.mark.parametrize('text', [
    '', 'x', '--1', '1.5', '1e3', 'nan', 'inf', '[]', '[1', '1,', '1 2', '9' * 10, '0x10',
    '[[1]]'])
def test_what_is_no_whole_number_is_refused(text):
    with pytest.raises(ValueError):
        read_numbers(text)
