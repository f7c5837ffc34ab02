"""What comes from a file is shown in one short line of printable characters."""

import re
import time
from pathlib import Path

import pytest

from lesa_mmdet.utils.text import readable, shown


@pytest.mark.parametrize(
    'value, text',
    [
        ('backbone.conv1.weight', 'backbone.conv1.weight'),
        ('Größe 大小', 'Größe 大小'),
        (Path('a/b.pth'), 'a/b.pth'),
        (ValueError('no\nsuch'), r'no\nsuch'),
        (None, 'None'),
        (1.5, '1.5'),
        (float('nan'), 'nan'),
        (-3, '-3'),
        ((1,), '(1,)'),
        ([1, 'a', None, 2.0], "[1, 'a', None, 2.0]"),
        ([1, 2, 3, 4, 5], '[1, 2, 3, 4, ...]'),
        ({'a': [[[1]]]}, "{'a': [[...]]}"),
        ({}, '{}'),
        (object(), 'a value of type object'),
        (dict, 'dict'),
        (10**400, 'a number of 1,329 bits'),
        (b'\x00a', "b'\\\\x00a'"),
    ],
)
def test_plain(value, text):
    assert shown(value) == text.replace('\\\\', '\\')


@pytest.mark.parametrize(
    'evil',
    [
        '\x1b[2J\x1b[1;1H',
        'a\n2026-01-01 - mmengine - INFO - all is well',
        'a\rb',
        '\x9b31m',  # an escape sequence of one byte
        '\u202eevil\u2066',  # turns the direction of writing
        '\u2028line',
        'null\0',
        '\ud800',
        '\u200b\ufeff',
    ],
)
def test_nothing_but_printable_characters_in_one_line(evil):
    for value in (evil, [evil], {evil: evil}, (evil, 1), ValueError(evil), {1: {evil}}):
        text = shown(value)
        assert text.isprintable()
        text.encode()  # a terminal can write it
    assert len(shown(evil * 1000)) < 140


@pytest.mark.parametrize(
    'value',
    [
        'a' * 10_000_000,
        '\x1b' * 10_000_000,
        b'a' * 10_000_000,
        ['a' * 1_000_000] * 1000,
        {'a' * 1_000_000 + str(i): 'b' * 1000 for i in range(5)},
        list(range(1_000_000)),
        10**4400,
        10**100_000,
    ],
    ids=range(8),  # pytest would name a case by its value
)
def test_long_values_are_short_and_quick(value):
    start = time.perf_counter()
    text = shown(value)
    assert time.perf_counter() - start < 0.5
    assert len(text) < 140


def test_says_what_was_cut():
    assert shown('a' * 101) == f'{"a" * 100}... (101 characters)'
    assert shown('a' * 30, limit=10) == f'{"a" * 10}... (30 characters)'


def test_a_list_in_itself():
    node = []
    node.append(node)
    assert re.fullmatch(r'\[\[\[\.\.\.\]\]\]', shown(node))


def test_runs_nothing_of_a_value():
    class Evil(list):
        def __repr__(self):
            raise AssertionError

    assert shown(Evil([1])) == '[1]'


@pytest.mark.parametrize(
    'text, drawn',
    [
        ('Größe 大小', 'Größe 大小'),
        ('大小'.encode().decode('ascii', 'surrogateescape'), '大小'),
        ('caf\udce9', 'caf\ufffd'),
    ],
)
def test_what_the_locale_cannot_decode_is_readable(text, drawn):
    assert readable(text) == drawn
