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


def commands(text):
    code = re.findall(r'```\w*\n(.*?)```', text, flags=re.S)
    return [strip_comments(block) for block in code]


def tables(text):
    return [numbers_and_code(row) for row in text.splitlines() if row.startswith('|')]


def sections_pictures_and_links(text):
    headings = [len(found) for found in re.findall(r'^(#+) ', text, flags=re.M)]
    targets = set(re.findall(r'\]\(([^)]+)\)', text))
    return headings, targets - set(PAIRS[0])  # the READMEs name each other


@pytest.mark.parametrize('part', [commands, tables, sections_pictures_and_links])
@pytest.mark.parametrize(('english', 'chinese'), PAIRS)
def test_both_have_the_same(part, english, chinese):
    assert part((ROOT / english).read_text(encoding='utf-8')) == part(
        (ROOT / chinese).read_text(encoding='utf-8')
    )


def test_the_configs_table_is_word_for_word():
    tables = [
        re.search(
            r'<!-- written by.*?<!-- end', (ROOT / name).read_text(encoding='utf-8'), flags=re.S
        )[0]
        for name in PAIRS[0]
    ]
    assert tables[0] == tables[1]
