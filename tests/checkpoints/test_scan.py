"""What is no file of torch.save is refused before anything of it is run."""

import json
import struct
import zipfile
import zlib
from io import BytesIO

import pytest
import torch

from lesa_mmdet.checkpoints.files import read_checkpoint
from lesa_mmdet.checkpoints.pickles import Rejected
from lesa_mmdet.checkpoints.scan import scan_archive, scan_legacy

from helpers import pickles
from helpers.pickles import Call, Global, Items, Raw, Storage, graph, repeated
from patches.forked import run_forked
from programs.read_in_children import read_under_limit

ORDERED, SET = Global('collections.OrderedDict'), Global('builtins.set')
HOOKS = Call(ORDERED, ())
ENCODE, TENSOR = Global('_codecs.encode'), Global('torch._utils._rebuild_tensor_v2')
KEY, LARGE = 'as the key of a dict or in a set', 'in a storage of 16 elements'
COMPLEX = Global('builtins.complex')
OTHER_ARGUMENTS = 'with other arguments than torch.save'
ITSELF, COPIES = 'contains itself', 'much more than it has bytes'
DEEP, ENTRIES = 'more than 100 levels deep', 'more than 4,000,000 entries'
OTHERWISE = 'in another way than torch.save'


def tensor(*args, **kwargs):
    return {'state_dict': {'weight': pickles.tensor(*args, **kwargs)}}


HOSTILE = [
    # graphs of containers, which a hash or a comparison walks over for ever
    (Items([(graph(5), 1)]), KEY),
    (Items([(graph(5), 1)], of=HOOKS), KEY),
    (Call(SET, ([graph(5)],)), KEY),
    (Call(ORDERED, ([[graph(5), 1]],)), KEY),
    (Call(Global('collections.Counter'), (Items([(graph(5), 1)]),)), KEY),
    ({'meta': graph(30)}, ENTRIES),
    ({'meta': graph(30, 'list')}, ENTRIES),
    ({'meta': graph(30, 'dict')}, ENTRIES),
    ({'meta': graph(150)}, ENTRIES),
    (Storage(graph(5)), OTHERWISE),
    (tensor(0, graph(5), graph(5)), OTHERWISE),
    # depth
    (Raw(b']' * 300 + b'a' * 299), DEEP),
    (Raw(b')' + b'\x85' * 300), DEEP),
    (Raw(b'N' + (b'\x85' * 50 + b'q\0h\0\x86') * 9), DEEP),
    # what contains itself
    (Raw(b']q\0h\0a'), ITSELF),
    (Raw(b']q\0(h\0h\0e'), ITSELF),
    (Raw(b'}q\0X\x01\0\0\0ah\0s'), ITSELF),
    (Raw(b']q\0h\0\x85a'), ITSELF),
    (Raw(b']q\0}q\1X\x01\0\0\0ah\0sa'), ITSELF),
    # keys
    *((Items([(key, 1)]), KEY) for key in (None, b'a', (), (1,), [], {}, pickles.dtype())),
    *((Call(SET, ([key],)), KEY) for key in (None, b'a', (), (1,), [], {}, pickles.tensor())),
    # keys that are alike, or of the same hash: each is compared with all others
    (Items([(Call(COMPLEX, (-1000003.0 * k, float(k))), 1) for k in range(3)]), KEY),
    (Call(SET, ([Call(COMPLEX, (1.0, 2.0))],)), KEY),
    (Items([(k * ((1 << 61) - 1), 1) for k in range(10)]), 'keys as long as'),
    (Items([('a' * 1001, 1), ('a' * 1000, 1)]), r'keys as long as a+\.\.\. \(1,001 characters'),
    (Items([('a' * 1000, 1), (-(1 << 63), 1), (1.5, 1), (True, 1)]), None),
    # calls of more than they take
    *(
        (Call(Global(name), (0,) * 11), OTHER_ARGUMENTS)
        for name in ('torch.device', 'collections.OrderedDict', 'numpy.dtype', 'builtins.set')
    ),
    (Call(ORDERED, ([], [])), 'a dict of something else than pairs'),
    # the same numbers in many tensors, each of which is looked through
    ([pickles.tensor(0, (16,)) for _ in range(101)], 'the same 16 numbers in more than 100'),
    ([pickles.tensor(0, (16,)) for _ in range(100)], None),
    # bytes of bytes, and the same ones again and again
    (Call(ENCODE, (Call(ENCODE, ('a', 'latin1')), 'latin1')), 'bytes of bytes in latin1'),
    (Call(ENCODE, ('a', 'utf-16')), 'bytes of a in utf-16'),
    (Call(ENCODE, ('a', 7)), 'bytes of a in 7'),
    (Call(Global('builtins.bytearray'), (1 << 40,)), 'asks for bytearray'),
    (Call(Global('builtins.bytes'), (1 << 40,)), 'calls builtins.bytes with other arguments'),
    (Raw(b'](' + pickles.assemble(ENCODE) + b'q\1' + pickles.assemble(('a' * 9999, 'latin1'))
         + b'q\0' + b'h\1h\0R' * 2000 + b'e'), COPIES),
    ([repeated([1] * 9000, SET, 15), 'a' * 10_000], None),
    ([repeated([1] * 9000, SET, 50), 'a' * 8_000_000], COPIES),
    (repeated([1] * 9000, SET, 2000), COPIES),
    (repeated([['a', 1]] * 9000, ORDERED, 2000), COPIES),
    (repeated((1,) * 9000, Global('torch.Size'), 2000), COPIES),
    # tensors that are larger than their storages
    (tensor(0, (1 << 30,), (0,)), LARGE),
    (tensor(0, (17,), (1,)), LARGE),
    (tensor(0, (17,), (0,)), LARGE),
    (tensor(13, (4,), (1,)), LARGE),
    (tensor(0, (4,), (6,)), LARGE),
    (tensor(0, (1 << 40, 0, 4), (1, 1, 1 << 47)), None),  # an empty one
    (tensor(0, (4,), (-1,)), OTHERWISE),
    (tensor(-1, (4,), (1,)), OTHERWISE),
    (tensor(0, (True,), (1,)), OTHERWISE),
    (tensor(0, (4.0,), (1,)), OTHERWISE),
    (tensor(0, (1 << 62,), (1 << 62,)), OTHERWISE),
    (tensor(0, (1,) * 26, (1,) * 26), OTHERWISE),
    (tensor(0, (4, 1), (1,)), OTHERWISE),
    (tensor(0, 4, 1), OTHERWISE),
    # storages that are not in the file
    (tensor(count=17), 'a storage of 68 bytes, and has 64'),
    (tensor(count=1 << 40), 'a storage of 4398046511104 bytes, and has 64'),
    (tensor(count=-1), OTHERWISE),
    (tensor(count='16'), OTHERWISE),
    (tensor(key='1'), 'and has none of them'),
    (tensor(key='../data.pkl'), 'and has none of them'),
    (tensor(key=7), OTHERWISE),
    (tensor(kind='torch.DoubleStorage', count=8), None),
    ([tensor(), tensor(kind='torch.IntStorage')], 'one storage as two kinds'),
    (tensor(location='meta'), 'on the device meta'),
    (tensor(location='cpu\x1b[2J'), r'on the device cpu\\x1b\[2J'),
    (tensor(location=7), OTHERWISE),
    # tensors of other kinds
    (tensor(kind='torch.QInt8Storage'), 'asks for torch.QInt8Storage'),
    (tensor(kind='torch.storage.UntypedStorage'), 'asks for torch.storage.UntypedStorage'),
    *(
        (Call(Global(f'torch._utils.{name}'), ()), f'asks for torch._utils.{name}')
        for name in (
            '_rebuild_sparse_tensor',
            '_rebuild_nested_tensor',
            '_rebuild_meta_tensor_no_storage',
            '_rebuild_qtensor',
            '_rebuild_tensor_v3',
            '_rebuild_wrapper_subclass',
            '_rebuild_device_tensor_from_numpy',
            '_rebuild_parameter_with_state',
        )
    ),
    (Call(Global('torch._tensor._rebuild_from_type_v2'), ()), 'asks for torch._tensor'),
    (Call(Global('torch.FloatTensor'), (), ()), 'asks for torch.FloatTensor'),
    (Call(TENSOR, (*pickles.tensor().args[:5], Items([('a', 1)], of=HOOKS))), OTHERWISE),
    (Call(TENSOR, (*pickles.tensor().args, {'conj': True})), OTHERWISE),
    (pickles.pid(), 'asks for a storage'),
    # attributes of a dict, which shadow its methods
    (Call(ORDERED, (), {'get': 1}), 'attributes of its own'),
    (Call(ORDERED, (), {'_metadata': 1, 'items': 2}), 'attributes of its own'),
    (Call(ORDERED, (), {'_metadata': {'': {'version': 2}}}), None),
    (Call(ORDERED, (), [1]), 'attributes of its own'),
    (Call(HOOKS, ()), 'calls collections.OrderedDict'),
    (Call(Global('torch.float32'), ()), 'calls torch.float32'),
    # names
    (Global('a' * 1_000_000 + '.b'), r'asks for a+\.\.\. \(1,000,002 characters\)'),
    (Global('os\x1b[2J.b'), r'asks for os\\x1b\[2J.b'),
    (Global('torch.hub.load'), 'asks for torch.hub.load'),
    (Raw(b'N' * 1_000_001), 'more than 1,000,000 opcodes'),
]  # fmt: skip


@pytest.mark.parametrize('index', range(len(HOSTILE)))
def test_refused_before_it_runs(index, tmp_path):
    node, reason = HOSTILE[index]
    path = pickles.write(tmp_path / 'file.pth', node)
    with open(path, 'rb') as file:
        if reason is None:
            return scan_archive(file)
        with pytest.raises(Rejected, match=reason):
            scan_archive(file)


@pytest.mark.parametrize(
    'pickled',
    [
        b'',
        b'.',
        b'N',
        b'\x80\x02NN.',
        b'\x80\x02(.',
        b'\x80\x02h\0.',
        b'\x80\x02R.',
        b'\x80\x02a.',
        b'\x80\x02}NNNu.',
        b'\x80\x02e.',
        b'\x80\x02\x87.',
        b'\x80\x02X\xff\xff\xff\xffabc.',
        b'\x80\x02X\x01\0\0\0\xff.',
        b'\x80\x02\x8b\xff\xff\xff\x7f1.',
        b'\x80\x02I' + b'9' * 5000 + b'\n.',
        b'\x80\x04\x95\x00\0\0\0\0\0\0\0N.',
        b'\x80\x02cos\n',
        b'\x80\x02Q.',
        b'\x80\x020.',
        b'\x80\x02\x8cab.',
        b'\xff\xfe',
    ],
)
def test_broken_pickles_are_refused(pickled, tmp_path):
    path = pickles.write(tmp_path / 'file.pth', None, pickled=pickled)
    with pytest.raises(ValueError, match='is refused|is not a checkpoint'):
        read_checkpoint(path)


@pytest.mark.parametrize(
    'change, reason',
    [
        (dict(compression=zipfile.ZIP_DEFLATED, storage=bytes(1 << 20)), 'more than 2 times its'),
        (dict(more=[('archive/data.pkl', b'\x80\x02N.')]), 'several contents'),
        (dict(more=[('archive/DATA.PKL', b'\x80\x02N.')]), 'several contents'),
        (dict(more=[('archive/constants.pkl', b'')]), 'a program of TorchScript'),
    ],
)
def test_archives_of_other_makers(change, reason, tmp_path):
    pickles.write(tmp_path / 'file.pth', tensor(), **change)
    with (tmp_path / 'file.pth').open('rb') as file, pytest.raises(Rejected, match=reason):
        scan_archive(file)


UNICODE_NAME = b'archive/other'
UNICODE_EXTRA = struct.pack('<HHBL', 0x7075, 5 + len(UNICODE_NAME), 1, zlib.crc32(b'archive/bX'))


@pytest.mark.parametrize(
    'attributes, replaced, reason',
    [
        (dict(compress_type=zipfile.ZIP_LZMA), b'', 'packed in another way'),
        (dict(compress_type=zipfile.ZIP_BZIP2), b'', 'packed in another way'),
        ({}, b'archive/b\0', 'several contents'),
        (dict(extra=UNICODE_EXTRA + UNICODE_NAME), b'', 'several contents'),
    ],
)
def test_members_of_other_makers(attributes, replaced, reason, tmp_path):
    path = tmp_path / 'file.pth'
    pickles.write(path, tensor())
    with zipfile.ZipFile(path, 'a') as archive:
        member = zipfile.ZipInfo('archive/bX')
        for key, value in attributes.items():
            setattr(member, key, value)
        archive.writestr(member, b'')
    if replaced:
        path.write_bytes(path.read_bytes().replace(b'archive/bX', replaced))
    with path.open('rb') as file:
        if 'archive/bX' in zipfile.ZipFile(file).namelist() and 'extra' in attributes:
            return scan_archive(file)  # Python before 3.13 leaves the other name alone, as torch
        with pytest.raises(Rejected, match=reason):
            scan_archive(file)


@pytest.mark.parametrize('where', ['locator', 'record', 'short'])
def test_two_lists_of_members(where, tmp_path):
    """Python's reader and torch's would each follow another of them."""
    path = tmp_path / 'file.pth'
    torch.save({'state_dict': {}}, path)
    content = bytearray(path.read_bytes())
    assert content[-42:-38] == b'PK\6\7' and content[-98:-94] == b'PK\6\6'  # as torch writes it
    at = {'locator': -42 + 8, 'record': -98 + 48, 'short': -22 + 16}[where]
    content[at] ^= 1
    path.write_bytes(content)
    with path.open('rb') as file, pytest.raises((Rejected, zipfile.BadZipFile)):
        scan_archive(file)


def test_an_archive_after_something_else(tmp_path):
    path = pickles.write(tmp_path / 'file.pth', tensor())
    content = b'PK\3\4' + open(path, 'rb').read()
    with pytest.raises(Rejected, match='several contents'):
        scan_archive(BytesIO(content))


def legacy(**change):
    node = tensor()
    call = node['state_dict']['weight']
    call.args[0].pid = (*call.args[0].pid, change.pop('view', None))
    return node, change


@pytest.mark.parametrize(
    'change, reason',
    [
        (dict(keys=('0', '0')), 'other storages'),
        (dict(keys=()), 'other storages'),
        (dict(keys=(0,)), None),
        (dict(storages=[(1 << 40, bytes(64))]), 'longer than the file'),
        (dict(storages=[(-1, bytes(64))]), 'longer than the file'),
        (dict(storages=[(16, bytes(63))]), 'longer than the file'),
        (dict(view=('1', 0, 4)), OTHERWISE),
    ],
)
def test_files_from_before_archives(change, reason, tmp_path):
    node, change = legacy(**change)
    path = pickles.write_legacy(tmp_path / 'file.pth', node, **change)
    with open(path, 'rb') as file, pytest.raises((Rejected, LookupError), match=reason):
        scan_legacy(file)


@pytest.mark.parametrize('archive', [True, False])
def test_all_that_detectors_hold_is_read(archive, tmp_path):
    weight = torch.arange(24.0).reshape(2, 3, 4)
    state = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)).state_dict()
    content = {
        'state_dict': state,
        'views': [weight, weight[1], weight.transpose(0, 2), weight[..., ::2]],
        'types': [
            torch.zeros(2, dtype=getattr(torch, name))
            for name in 'float64 float16 bfloat16 int64 int32 int16 int8 uint8 bool'.split()
        ],
        'scalar': torch.tensor(1.5),
        'empty': torch.zeros(0, 3),
        'parameter': torch.nn.Parameter(torch.ones(2)),
        'plain': [1, -(10**30), 1.5, None, True, 'ä', b'bytes', 1j, {1, 2}, (), [], {}],
        'shape': weight.shape,
        'dtype': torch.float16,
        'device': torch.device('cuda', 1),
    }
    torch.save(content, tmp_path / 'file.pth', _use_new_zipfile_serialization=archive)
    read = read_checkpoint(tmp_path / 'file.pth')
    assert read['state_dict']._metadata == state._metadata
    assert torch.equal(read['views'][3], weight[..., ::2])
    assert read['views'][0].untyped_storage().data_ptr() == (
        read['views'][1].untyped_storage().data_ptr()
    )
    assert [value.dtype for value in read['types']] == [v.dtype for v in content['types']]
    for name in ('plain', 'shape', 'dtype', 'device', 'scalar'):
        assert read[name] == content[name]


def read_with(path, spare, output):
    """Read a file with some bytes of memory to spare: what came of it, and seconds it took."""
    code = run_forked(read_under_limit, path, spare, output=output, timeout=60)
    assert code == 0, output.read_text(encoding='utf-8')[-2000:]
    return json.loads(output.read_text(encoding='utf-8').splitlines()[-1])


@pytest.mark.parametrize('archive', [True, False])
def test_memory_of_a_large_file(archive, tmp_path):
    path, size = str(tmp_path / 'file.pth'), 64 << 20
    weights = {'state_dict': {str(i): torch.zeros(size // 32) for i in range(8)}}
    torch.save(weights, path, _use_new_zipfile_serialization=archive)
    assert read_with(path, 3 * size, tmp_path / 'output.txt')[0] == ['state_dict']


@pytest.mark.parametrize(
    'node',
    [
        Items([(graph(200), 1)]),
        Global('a' * 1_000_000 + '.b'),
        tensor(0, (1 << 30,), (0,)),
        Raw(b'](' * 499_000),
        Raw(b'N' + b'q\0h\0\x86' * 250_000),
        Items([(k * ((1 << 61) - 1), 1) for k in range(100_000)]),
        Raw(b'](' + pickles.assemble(COMPLEX) + b'q\0' + pickles.assemble((0,) * 400_000) + b'q\1'
            + b'h\0h\1R' * 100_000 + b'e'),
        Raw(pickles.assemble('a' * 2_000_000) + b'q\0' + pickles.assemble('a' * 2_000_000)
            + b'q\1}(' + b'h\0Nh\1N' * 100_000 + b'u\x87'),
        pickles.array(pickles.dtype('u1'), (1 << 2000,) * 90_000),
    ],
)  # fmt: skip
def test_memory_and_time_of_a_small_file(node, tmp_path):
    path = pickles.write(tmp_path / 'file.pth', node)
    result, seconds = read_with(path, 256 << 20, tmp_path / 'output.txt')
    assert result == 'refused' or 'is not a checkpoint' in result
    assert seconds < 10


@pytest.mark.parametrize('opcode', [b'X', b'\x8b', b'T', b'B', b'\x8e', b'\x96'])
def test_memory_of_a_length_that_is_a_lie(opcode, tmp_path):
    path = tmp_path / 'file.pth'
    path.write_bytes(b'\x80\x02' + opcode + b'\xff\xff\xff\x7f\0\0\0\0' + b'a' * 99)
    result, _ = read_with(str(path), 256 << 20, tmp_path / 'output.txt')
    assert 'is not a checkpoint' in result
