"""What a run has left in a folder is believed only as far as a run writes it."""

import errno
import json
import os
import time
from pathlib import Path

import pytest

from lesa_mmdet.apis.records import Records

SETTINGS = {'config': 'a'}
IMAGE = {'file_name': 'a.png', 'height': 4, 'width': 5, 'results': []}
ENTRY = {'source': '/a.png', 'stamp': [1, 2], 'name': 'a.png', 'images': [IMAGE]}


def write(folder, *lines):
    folder.mkdir(exist_ok=True)
    lines = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    (folder / 'records.jsonl').write_bytes(b''.join(line + b'\n' for line in lines))


def records_of(folder):
    return (folder / 'records.jsonl').read_bytes().splitlines(keepends=True)


def without(key, node=ENTRY):
    return {name: value for name, value in node.items() if name != key}


@pytest.mark.parametrize(
    'entry, reason',
    [
        *(
            ({**ENTRY, 'name': name}, 'name is .*, but has to be the name of a file')
            for name in (
                *('../../evil.png', '/tmp/evil.png', 'a/b.png', 'a\\b.png', 'C:evil.png', '..'),
                *('.', '', 'a\x1b[2J.png', 'a\n.png', 'a\0.png', 7, None, ['a.png'], '\ud800'),
            )
        ),
        (7, 'a line is 7, but has to be a dict'),
        ([], 'a line is .., but has to be a dict'),
        ({}, 'an entry has no source'),
        *((without(key), f'an entry has no {key}') for key in ENTRY),
        ({**ENTRY, 'source': 7}, 'source is 7'),
        ({**ENTRY, 'stamp': [1]}, r'stamp is \[1\], but has to be two numbers or None'),
        ({**ENTRY, 'stamp': 'ab'}, 'stamp is ab, but'),
        ({**ENTRY, 'images': {}}, 'images is {}, but has to be a list'),
        *(
            ({**ENTRY, 'images': [without(key, IMAGE)]}, rf'images\[0\] has no {key}')
            for key in IMAGE
        ),
        ({**ENTRY, 'images': [{**IMAGE, 'height': 10**400}]}, 'height is a number of 1,329 bits'),
        ({**ENTRY, 'images': [{**IMAGE, 'results': [7]}]}, r'results\[0\] is 7, but has to be a'),
        (b'[' * 100_000, 'a line is no JSON.*: nested too deep'),
        (b'{', 'a line is no JSON'),
        (b'\xff\xfe', 'a line is no JSON'),
        (b'9' * 5000, 'a line is no JSON'),
    ],
)
def test_broken(entry, reason, tmp_path):
    write(tmp_path, SETTINGS, ENTRY, entry)
    before = (tmp_path / 'records.jsonl').read_bytes()
    with pytest.raises(ValueError, match=f'records.jsonl is broken, delete it.*{reason}') as error:
        Records(tmp_path, SETTINGS)
    assert str(error.value).isprintable() and len(str(error.value)) < 600
    assert (tmp_path / 'records.jsonl').read_bytes() == before


def test_names_that_are_no_utf8(tmp_path):
    """Python keeps their bytes as surrogates."""
    source = os.fsdecode(os.fsencode(tmp_path) + b'/caf\xe9.png')
    Path(source).touch()
    records = Records(tmp_path, SETTINGS)
    name = records.name(source)
    records.add(source, name, [dict(IMAGE, file_name=name)])
    records.drawing(name).parent.mkdir()
    records.drawing(name).touch()
    records.close()
    again = Records(tmp_path, SETTINGS)
    assert again.has(source)
    again.close()


def test_ids_of_images_are_small_numbers(tmp_path):
    names = ['000139.png', '9' * 200 + '.png', '²'.encode().decode() + '.png', '7.png']
    write(
        tmp_path,
        SETTINGS,
        *(
            {
                **ENTRY,
                'source': name,
                'name': name,
                'images': [{**IMAGE, 'file_name': name, 'id': 3}],
            }
            for name in names
        ),
    )
    records = Records(tmp_path, SETTINGS)
    records.write_results([])
    images = json.loads((tmp_path / 'images.json').read_text(encoding='utf-8'))['images']
    assert [image['id'] for image in images] == [139, 140, 141, 7]


def test_a_full_disk_leaves_the_results_that_were_there(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, 'No space left on device')

    write(tmp_path, SETTINGS, ENTRY)
    records = Records(tmp_path, SETTINGS)
    records.write_results([])
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    records.add('http://a.org/b.png', 'b.png', [dict(IMAGE, file_name='b.png')])
    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match='No space left') as error:
        records.write_results([])
    assert error.value.filename == str(tmp_path / 'predictions.json')
    before[tmp_path / 'records.jsonl'] += records_of(tmp_path)[-1]
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_two_runs_do_not_share_a_folder(tmp_path):
    first = Records(tmp_path, SETTINGS)
    with pytest.raises(ValueError, match='is in use by another run: wait for its end, or name'):
        Records(tmp_path, SETTINGS)
    first.close()
    Records(tmp_path, SETTINGS).close()


def test_after_a_kill_it_goes_on(tmp_path):
    write(tmp_path, SETTINGS, ENTRY)
    with (tmp_path / 'records.jsonl').open('ab') as file:
        file.write(b'{"source": "/b.p')
    Records(tmp_path, SETTINGS).close()
    lines = (tmp_path / 'records.jsonl').read_bytes().splitlines()
    assert [json.loads(line) for line in lines] == [SETTINGS, ENTRY]


@pytest.mark.parametrize('name', ['records.jsonl', 'predictions.json', 'images.json', 'vis'])
def test_links_are_not_followed(name, tmp_path):
    (tmp_path / 'precious').write_text('mine', encoding='utf-8')
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / name).symlink_to(tmp_path / 'precious')
    with pytest.raises(ValueError, match='is a link, to which nothing is written: remove it'):
        Records(tmp_path / 'out', SETTINGS)
    assert (tmp_path / 'precious').read_text(encoding='utf-8') == 'mine'


def test_a_drawing_is_no_link(tmp_path):
    (tmp_path / 'vis').mkdir()
    (tmp_path / 'vis' / 'a.png').symlink_to(tmp_path / 'precious')
    with pytest.raises(ValueError, match='a.png is a link'):
        Records(tmp_path, SETTINGS).drawing('a.png')


def test_a_name_is_found_among_many(tmp_path):
    records = Records(tmp_path, SETTINGS)
    for index in range(20_000):
        records._note({**ENTRY, 'source': f'/{index}', 'name': f'{index}.png'})
    start = time.process_time()
    names = {records.name(f'/new/{index}.jpg') for index in range(2000)}
    assert len(names) == 2000 and time.process_time() - start < 5
    records.close()


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / 'records.jsonl')
    with pytest.raises(ValueError, match='is a named pipe, but has to be a file'):
        Records(tmp_path, SETTINGS)
