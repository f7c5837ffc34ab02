"""The Chinese pages have the tables, commands and links of the English ones."""

import re

import pytest

from helpers.paths import ROOT

PAIRS = [('README.md', 'README_zh-CN.md'), ('docs/get_started.md', 'docs/get_started_zh-CN.md')]


def strip_comments(code):
    """Code without comments, which are translated."""
    return [line for line in (re.sub(r'\s*#.*', '', line) for line in code.splitlines()) if line]


def numbers_and_code(row):
    """What of a table's row is not prose: figures, code, links."""
    cells = re.findall(r'`[^`]+`|\]\([^)]+\)|\d+(?:\.\d+)?', row)
    return sorted(cell for cell in cells)


@pytest.mark.parametrize(('english', 'chinese'), PAIRS)
def test_commands_are_the_same(english, chinese):
    both = []
    for name in (english, chinese):
        code = re.findall(r'```\w*\n(.*?)```', (ROOT / name).read_text(), flags=re.S)
        both.append([strip_comments(block) for block in code])
    assert both[0] == both[1]


@pytest.mark.parametrize(('english', 'chinese'), PAIRS)
def test_tables_are_the_same(english, chinese):
    both = []
    for name in (english, chinese):
        rows = [row for row in (ROOT / name).read_text().splitlines() if row.startswith('|')]
        both.append([numbers_and_code(row) for row in rows])
    assert both[0] == both[1]


@pytest.mark.parametrize(('english', 'chinese'), PAIRS)
def test_sections_pictures_and_links_are_the_same(english, chinese):
    both = []
    for name in (english, chinese):
        text = (ROOT / name).read_text()
        headings = [len(found) for found in re.findall(r'^(#+) ', text, flags=re.M)]
        targets = re.findall(r'\]\(([^)]+)\)', text)
        both.append((headings, sorted(set(targets) - {english, chinese})))
    assert both[0] == both[1]


def test_the_configs_table_is_word_for_word():
    tables = [
        re.search(r'<!-- written by.*?<!-- end', (ROOT / name).read_text(), flags=re.S)[0]
        for name in PAIRS[0]
    ]
    assert tables[0] == tables[1]
