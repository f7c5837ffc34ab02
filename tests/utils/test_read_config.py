"""What is no config ends in a sentence, and YAML runs nothing."""

import os

import pytest
from mmengine.config import Config

from lesa_mmdet.utils.configs import read_config

BOMB = 'a0: &a0 x\n' + ''.join(
    f'a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}, *a{i - 1}]\n' for i in range(1, 40)
)
MERGED = 'a0: &a0 {k: 1}\n' + ''.join(
    f'a{i}: &a{i} {{<<: *a{i - 1}, k{i}: 1}}\n' for i in range(1, 600)
)


# Names of files, contents (\n begins a new line) and sentences.
TEXTS = r"""
a.py   | _base_ = 'a.py'                      | its _base_ leads back to .*a.py
a.py   | _base_ = ['./c.py', 'b.py']          | its _base_ leads back to .*a.py
a.yaml | _base_: ../{folder}/a.yaml           | its _base_ leads back to .*a.yaml
a.json | {"_base_": "a.json"}                 | its _base_ leads back to .*a.json
a.py   | a = (                                | was never closed
a.py   | a = nothing                          | 'nothing' is not defined
a.py   | a = '{{ fileBasenam }}'              | the variable fileBasenam, which is none of fileDir
a.py   | _base_ = 'c.py'\na = {{_base_.z}}    | KeyError: 'z'
a.py   | _base_ = 'c.py'\na = {{_base_.x.y}}  | is no config:
a.py   | _base_ = 7                           | is no config:
a.py   | _base_ = ['c.py', './c.py']          | Duplicate key is not allowed
a.py   | _base_ = 'c.py'\nx = dict(a=1)       | cannot inherit from base
a.py   | filename = 1                         | filename is reserved
a.json | {"a":                                | Expecting value
a.json | [1]                                  | its content is \[1\], but has to be a dict
a.json | 7                                    | its content is 7, but has to be a dict
a.yaml | a: [                                 | no YAML of plain data: while parsing a flow node
a.yaml | 1: 2                                 | its content has the key 1, but keys have to be text
a.yaml | a: *b                                | undefined alias
a.yaml | a: &a [*a]                           | YAML of more than 1,000,000 entries
a.yml  | a: !!python/object/apply:os.mkdir [executed] | determine a constructor
a.yml  | a: !!python/object/new:os.mkdir [executed] | determine a constructor
a.yml  | a: !!python/name:os.system           | determine a constructor
a.yml  | a: !!python/module:antigravity       | determine a constructor
a.yml  | a: !mine 1                           | determine a constructor
a.py   | _base_ = 'evil.yaml'                 | determine a constructor
a.py   | _base_ = None                        | its _base_ is None, but has to be a list
a.py   | _base_ = './pipe.py'                 | its _base_ .*pipe.py is a named pipe, but has to be
a.py   | _base_ = './folder.py'               | its _base_ .*folder.py is a folder, but
a.json | {"_base_": "pipe.json"}              | its _base_ .*pipe.json is a named pipe, but
a.json | {"_base_": [[1]]}                    | its _base_: \[0\] is \[1\], but has to be text
a.json | {"_base_": {"a": 1}}                 | its _base_ is {'a': 1}, but has to be a list
a.yaml | a: 2001-13-45                        | no YAML of plain data: month must be in 1..12
a.yaml | a: !!timestamp x                     | no YAML of plain data:
a.yaml | a: !!float x                         | no YAML of plain data: could not convert
a.yaml | [1]: 2                               | found unhashable key
a.yaml | a: 1\n---\nb: 1                      | but found another document
"""


def read_table(text):
    for line in text.strip().splitlines():
        name, content, sentence = map(str.strip, line.split(' | '))
        yield name, content.replace(r'\n', '\n'), sentence


@pytest.mark.parametrize(
    'name, content, sentence',
    [
        *read_table(TEXTS),
        ('a.json', r'{"a\n": 1}', r'its content has the key a\\n, but keys have to be text'),
        ('a.py', b'\xff\xfe\0', "can't decode byte"),
        ('a.py', b'a = 1\0', 'null bytes'),
        ('a.py', '(' * 250 + ')' * 250, 'too many nested parentheses'),
        ('a.json', b'\0\1\2', 'is no config: '),
        ('a.json', '[' * 100_000, 'it is nested too deep'),
        ('a.yaml', '', 'its content is None, but has to be a dict'),
        ('a.yaml', BOMB, 'YAML of more than 1,000,000 entries'),
        ('a.py', '\ufeffa = 1', 'invalid non-printable character U.FEFF'),
        ('a.py', 'a = ' + '-' * 200_000 + '1', 'it is nested too deep'),
        ('a.py', 'a = b' + '.c' * 200_000, 'it is nested too deep'),
        ('a.json', b'\xef\xbb\xbf{"a": 1}', 'Unexpected UTF-8 BOM'),
        ('a.json', '{{"a": 1}}'.encode('utf-16'), "can't decode byte"),
        ('a.json', '{"a": ' + '9' * 5000 + '}', 'Exceeds the limit'),
        ('a.yaml', 'a: 0x' + 'f' * 9000, 'YAML with a number of 36,000 bits'),
        ('a.yaml', 'a: ' + '1:' * 3000 + '1', 'YAML with a number of [0-9,]+ bits'),
        ('a.yaml', 'a: \0', 'unacceptable character #x0000'),
        ('a.yaml', MERGED, 'YAML that merges more than 100,000 entries'),
    ],
    ids=range(55),
)
def test_no_config(name, content, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    others = {
        'b.py': "_base_ = 'a.py'",
        'c.py': 'x = 1',
        'evil.yaml': 'a: !!python/object/apply:os.mkdir [executed]',
    }
    for other, text in others.items():
        (tmp_path / other).write_text(text, encoding='utf-8')
    (tmp_path / 'folder.py').mkdir()
    for pipe in ('pipe.py', 'pipe.json'):
        os.mkfifo(tmp_path / pipe)
    if isinstance(content, str):
        content = content.replace('{folder}', tmp_path.name).encode()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f'{name} is no config: .*{sentence}|{sentence}') as error:
        read_config(str(tmp_path / name))
    assert len(str(error.value)) < 800 and str(error.value).isprintable()
    assert not (tmp_path / 'executed').exists()


def test_plain_yaml_is_read_and_written(tmp_path):
    path = tmp_path / 'a.yaml'
    Config(dict(a=(1, 2), b=dict(c=['d', None, 1.5, True]))).dump(path)
    assert read_config(str(path)).to_dict() == dict(a=(1, 2), b=dict(c=['d', None, 1.5, True]))
    path.write_text('a: &a [1, 2]\nb: [*a, *a]', encoding='utf-8')
    assert read_config(str(path)).b == [[1, 2], [1, 2]]


def test_bases_in_a_diamond_are_no_circle(tmp_path):
    for name, text in {
        'top.py': 'x = dict(a=1)',
        'left.py': "_base_ = 'top.py'",
        'right.py': "_base_ = 'left.py'",
        'a.py': "_base_ = ['right.py']\nname = '{{ fileBasenameNoExtension }}'",
    }.items():
        (tmp_path / name).write_text(text, encoding='utf-8')
    cfg = read_config(str(tmp_path / 'a.py'))
    assert cfg.x.a == 1 and cfg.name == 'a'


def test_what_a_program_raises_keeps_its_traceback(tmp_path):
    (tmp_path / 'a.py').write_text('a = 1 / 0', encoding='utf-8')
    with pytest.raises(ZeroDivisionError):
        read_config(str(tmp_path / 'a.py'))


@pytest.mark.parametrize('name, kind', [('folder.py', 'a folder'), ('pipe.py', 'a named pipe')])
def test_no_file(name, kind, tmp_path):
    (tmp_path / 'folder.py').mkdir()
    os.mkfifo(tmp_path / 'pipe.py')
    with pytest.raises(ValueError, match=f'{name} is {kind}, but has to be a file'):
        read_config(str(tmp_path / name))
