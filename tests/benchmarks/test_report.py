"""The tables of measured figures: rendered from the results, the same in the documents."""

import json
import re

import measure
import pytest
import report

from helpers.paths import ROOT


@pytest.mark.parametrize('name', report.DOCUMENTS)
def test_documents_show_what_the_results_say(name):
    text = (ROOT / name).read_text(encoding='utf-8')
    assert report.PLACE.search(text)
    assert report.render(text) == text, 'run python benchmarks/report.py --write'


def test_every_table_has_its_place_and_every_place_its_table():
    places = set()
    for name in report.DOCUMENTS:
        text = (ROOT / name).read_text(encoding='utf-8')
        places |= {found[2] for found in report.PLACE.finditer(text)}
    assert places == set(report.TABLES)


def test_every_result_says_where_when_and_how_it_was_measured():
    files = list(report.RESULTS.glob('*/*.json'))
    assert len(files) > 10
    for file in files:
        found = json.loads(file.read_text(encoding='utf-8'))
        assert found['records'] and found['machine'], file
        assert re.fullmatch(r'[0-9a-f]{7,}', found['commit']), f'{file}: measured on changed files'
        assert found['command'].startswith('python benchmarks/'), file


def test_a_changed_figure_changes_the_table(monkeypatch):
    before, read = report.attention(), report.read

    def read_changed(*names):
        found = read(*names)
        report.step(found['records'][0])['mib'] += 1000
        return found

    monkeypatch.setattr(report, 'read', read_changed)
    assert report.attention() != before


def test_a_result_that_is_saved_is_found_by_its_machine(monkeypatch, tmp_path):
    monkeypatch.setattr(measure, 'RESULTS', tmp_path / 'results')
    monkeypatch.setattr(report, 'RESULTS', tmp_path / 'results')
    about = dict(name='A(R) CPU @ 2 GHz, 2 threads', instructions='AVX512', torch='2')
    (tmp_path / 'results').mkdir()
    measure.save(
        None, 'pretrain', about, [dict(form='conv', batch=8, result=dict(seconds=2, mib=9))]
    )
    assert list(report.machines('pretrain')) == ['a-cpu-2-ghz-2-threads-avx512']
    monkeypatch.setattr(report, 'MACHINE', 'a-cpu-2-ghz-2-threads-avx512')
    monkeypatch.setattr(report.read, '__defaults__', (report.MACHINE,))
    monkeypatch.setattr(report.caption, '__defaults__', (report.MACHINE,))
    assert '| convolution | 9 MiB | 4.00 |' in report.pretrain()


def test_a_result_goes_where_it_is_told(tmp_path):
    measure.save(str(tmp_path / 'a.json'), 'any', dict(name='here'), [dict(x=1)])
    assert json.loads((tmp_path / 'a.json').read_text(encoding='utf-8'))['records'] == [{'x': 1}]
