"""Config files: what mmengine would run, wait for, or stumble over."""

import os

from lesa_mmdet.utils.configs import load_config

from helpers.bad_input import Case

NO_CONFIG = 'is no config: '
BOMB = 'a0: &a0 x\n' + ''.join(
    f'a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}, *a{i - 1}]\n' for i in range(1, 40)
)
MERGED = 'a0: &a0 {k: 1}\n' + ''.join(
    f'a{i}: &a{i} {{<<: *a{i - 1}, k{i}: 1}}\n' for i in range(1, 500)
)
CALL = '!!python/object/apply:os.mkdir [executed]'


def config(name, file, content, sentence, code=1):
    """A case of a config; other files lie beside it."""

    def do(place):
        content_ = content if isinstance(content, bytes) else content.encode()
        place.write('evil.yaml', f'a: {CALL}')
        place.write('twin.py', "_base_ = './a.py'")
        (place / 'folder.py').mkdir()
        os.mkfifo(place / 'pipe.py')
        (place / file).write_bytes(content_)
        try:
            load_config(str(place / file))
        finally:
            assert not (place / 'executed').exists()

    return Case(name, sentence, do, code)


CASES = [
    config('a circle', 'a.py', "_base_ = './twin.py'", NO_CONFIG + 'its _base_ leads back'),
    config('a base that is a pipe', 'a.py', "_base_ = './pipe.py'", 'is a named pipe, but'),
    config('a base that is a folder', 'a.py', "_base_ = './folder.py'", 'is a folder, but'),
    config('a base of nothing', 'a.py', '_base_ = None', 'its _base_ is None, but'),
    config('a base in a dict', 'a.json', '{"_base_": {"a": 1}}', 'its _base_ is {.*}, but'),
    config('a base with a forged line', 'a.py', r"_base_ = './a\nerror\x1b.py'", r'a\\nerror\\x1b'),
    config('a base that runs code', 'a.py', "_base_ = './evil.yaml'", 'could not determine a con'),
    config('a call in YAML', 'a.yaml', f'a: {CALL}', NO_CONFIG + 'no YAML of plain data: could'),
    config('an object in YAML', 'a.yml', 'a: !!python/object/new:os.system [x]', 'no YAML of'),
    config('a name in YAML', 'a.yaml', 'a: !!python/name:os.system', 'no YAML of plain data'),
    config('a module in YAML', 'a.yaml', 'a: !!python/module:antigravity', 'no YAML of plain data'),
    config('another tag', 'a.yaml', 'a: !mine 1', 'no YAML of plain data'),
    config('a bomb', 'a.yaml', BOMB, 'YAML of more than 1,000,000 entries'),
    config('mappings of mappings', 'a.yaml', MERGED, 'YAML that merges more than 100,000'),
    config('in itself', 'a.yaml', 'a: &a [*a]', 'YAML of more than 1,000,000 entries'),
    config('a number of 36,000 bits', 'a.yaml', 'a: 0x' + 'f' * 9000, 'a number of 36,000 bits'),
    config('no date', 'a.yaml', 'a: 2001-13-45', 'no YAML of plain data: month'),
    config('two documents', 'a.yaml', 'a: 1\n---\nb: 1', 'but found another document'),
    config('keys that are lists', 'a.yaml', '[1]: 2', 'found unhashable key'),
    config('deep JSON', 'a.json', '{"a":' * 100_000, 'it is nested too deep'),
    config('deep Python', 'a.py', 'a = ' + '-' * 200_000 + '1', 'it is nested too deep'),
    config('a list', 'a.json', '[1]', r'its content is \[1\], but'),
    config('a number of 5,000 digits', 'a.json', '{"a":' + '9' * 5000 + '}', 'Exceeds the limit'),
    config('a BOM', 'a.json', b'\xef\xbb\xbf{"a": 1}', NO_CONFIG + 'Unexpected UTF-8 BOM'),
    config('UTF-16', 'a.json', '{"a": 1}'.encode('utf-16'), "can't decode byte"),
    config('UTF-16 in Python', 'a.py', 'a = 1'.encode('utf-16'), "can't decode byte"),
    config('a null byte', 'a.py', b'a = 1\0', 'null bytes'),
    config('binary', 'a.py', bytes(range(256)), NO_CONFIG),
    config('a reserved name', 'a.json', '{"filename": 1}', 'filename is reserved'),
    config('an unknown variable', 'a.py', "a = '{{ fileNam }}'", 'the variable fileNam, which is'),
    config('not a number', 'a.json', '{"a": NaN, "b": Infinity}', '', 0),
    config('a key twice', 'a.json', '{"a": 1, "a": 2}', '', 0),
]
