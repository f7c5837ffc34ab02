"""Checkpoint files that hang, fill the memory, or make of the model something else."""

import os
import struct
import zipfile

import torch
from mmengine.logging import HistoryBuffer
from torch import nn

from lesa_mmdet.checkpoints.files import read_checkpoint
from lesa_mmdet.checkpoints.fit import load_strict

from helpers import pickles
from helpers.bad_input import Case
from helpers.pickles import Call, Global, Items, Raw, graph, repeated

REFUSED = r'checkpoint \S+ is refused, nothing of it was executed: '
NO_CHECKPOINT = r'^\S+ is not a checkpoint of torch\.save, or it is truncated \('
COMPLEX, SET, ORDERED = (
    Global(name) for name in ('builtins.complex', 'builtins.set', 'collections.OrderedDict')
)
ENCODE = Global('_codecs.encode')
HASHES = (1 << 61) - 1  # whole numbers that differ by it have the same hash


def pickled(name, sentence, node, **archive):
    """A case of a pickle in an archive."""
    return Case(
        name,
        sentence,
        lambda place: read_checkpoint(pickles.write(place / 'a.pth', node, **archive)),
    )


def raw(name, content, sentence=NO_CHECKPOINT):
    """A case of a file of these bytes."""

    def do(place):
        (place / 'a.pth').write_bytes(content)
        read_checkpoint(place / 'a.pth')

    return Case(name, sentence, do)


def saved(name, sentence, make, code=1, **options):
    """A case of what torch saves."""

    def do(place):
        torch.save(make(), place / 'a.pth', **options)
        read_checkpoint(place / 'a.pth')

    return Case(name, sentence, do, code)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)


def loaded(name, sentence, change, code=1):
    """A case of a changed state dict that a model loads."""

    def do(place):
        model = Net()
        state = dict(model.state_dict())
        change(state)
        torch.save(dict(state_dict=state), place / 'a.pth')
        load_strict(model, read_checkpoint(place / 'a.pth'))

    return Case(name, sentence, do, code)


def weight(**tensor):
    return {'state_dict': {'weight': pickles.tensor(**tensor)}}


def put(key, value):
    return lambda state: state.update({key: value})


def full(key, value, dtype=None):
    return lambda state: put(key, torch.full(state[key].shape, value, dtype=dtype))(state)


def history(**changes):
    buffer = HistoryBuffer([1.0, 2.0], [1, 1])
    for key, value in changes.items():
        setattr(buffer, key, value)
    return {'message_hub': buffer}


def special(kind):
    """A case of a path that is no file."""

    def do(place):
        path = place / 'a.pth'
        if kind == 'a link to itself':
            path.symlink_to('a.pth')
        elif kind == 'a named pipe':
            os.mkfifo(path)
        read_checkpoint('/dev/zero' if kind == 'a device' else path)

    return do


def tarred(place):
    """What torch saved before 2016, with a first name that is a pickle, too."""
    magic = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'
    name = magic + b'\x80\x02M\xe9\x03.\x80\x02X\xf0\x01\0\0'
    header = bytearray(512)
    header[: len(name)] = name
    header[257:265] = b'ustar\x0000'
    header[148:156] = b' ' * 8
    header[148:156] = b'%06o\0 ' % sum(header)
    (place / 'a.pth').write_bytes(bytes(header) + bytes(1024))
    read_checkpoint(place / 'a.pth')


def in_two_lists(place):
    """Python's reader follows one list of an archive's members, torch's the other."""
    torch.save({'state_dict': {}}, place / 'a.pth')
    content = (place / 'a.pth').read_bytes()
    record, locator, end = content[-98:-42], bytearray(content[-42:-22]), content[-22:]
    size, offset = struct.unpack('<2Q', record[40:])
    members = content[offset : offset + size]
    other = members.replace(b'data.pkl', b'dbta.pkl')
    moved = record[:48] + struct.pack('<Q', offset + size + 56)
    locator[8:16] = struct.pack('<Q', offset + size)
    end = end[:16] + struct.pack('<L', offset + size + 56) + end[20:]
    (place / 'a.pth').write_bytes(
        content[:offset] + other + record + members + moved + locator + end
    )
    read_checkpoint(place / 'a.pth')


def damaged(place):
    """A checksum that is wrong."""
    torch.save({'state_dict': {'a': torch.ones(9)}}, place / 'a.pth')
    content = bytearray((place / 'a.pth').read_bytes())
    at = content.index(b'PK\1\2') + 16
    content[at : at + 4] = b'\0\0\0\0'
    (place / 'a.pth').write_bytes(content)
    read_checkpoint(place / 'a.pth')


def encrypted(place):
    pickles.write(place / 'a.pth', weight())
    content = bytearray((place / 'a.pth').read_bytes())
    at = content.index(b'PK\1\2')
    content[at + 8] |= 1
    (place / 'a.pth').write_bytes(content)
    read_checkpoint(place / 'a.pth')


def many_views(place):
    """Tensors that are all of a large storage, each of which is looked through."""
    views = [pickles.tensor(0, (1 << 20,), count=1 << 20) for _ in range(3000)]
    read_checkpoint(pickles.write(place / 'a.pth', views, bytes(4 << 20)))


HEADER = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}      '

CASES = [
    pickled('a graph as a key', REFUSED + '.* (levels deep|4,000,000)', Items([(graph(200), 1)])),
    pickled('a graph in a set', REFUSED + '.* in a set', Call(SET, ([graph(5)],))),
    pickled('a graph of lists', REFUSED + '.*4,000,000 entries', {'meta': graph(60, 'list')}),
    pickled('lists in lists', REFUSED + '.*100 levels deep', Raw(b']' * 9000 + b'a' * 8999)),
    pickled('in itself', REFUSED + '.*contains itself', Raw(b']q\0h\0a')),
    pickled(
        'keys of one hash',
        REFUSED + '.*keys as long as',
        Items([(k * HASHES, 1) for k in range(60_000)]),
    ),
    pickled(
        'complex keys of one hash',
        REFUSED + '.* as the key of a dict',
        Items([(Call(COMPLEX, (-1000003.0 * k, float(k))), 1) for k in range(1, 20_000)]),
    ),
    pickled('a key of 10 MB', REFUSED + r'.*10,000,000 characters', {'a' * 10_000_000: 1}),
    pickled(
        'long keys that are alike',
        REFUSED + '.*keys as long as',
        Raw(pickles.assemble('a' * 2_000_000) + b'q\0' + pickles.assemble('a' * 2_000_000)
            + b'q\1}(' + b'h\0Nh\1N' * 100_000 + b'u\x87'),
    ),
    pickled('a name of 1 MB', REFUSED + 'it asks for a+', Global('a' * 1_000_000 + '.b')),
    pickled('a name that moves the cursor', REFUSED + r'.*os\\x1b', Global('os\x1b[2J.b')),
    pickled(
        'calls with 400,000 arguments',
        REFUSED + '.*other arguments',
        Raw(b'](' + pickles.assemble(Global('torch.device')) + b'q\0'
            + pickles.assemble((0,) * 400_000) + b'q\1' + b'h\0h\1R' * 100_000 + b'e'),
    ),
    pickled(
        'the same set again and again',
        REFUSED + '.*more than it has bytes',
        repeated([1] * 90_000, SET, 2000),
    ),
    pickled(
        'bytes of bytes',
        REFUSED + '.*bytes of bytes in latin1',
        Call(ENCODE, (Call(ENCODE, ('a', 'latin1')), 'latin1')),
    ),
    pickled('a codec', REFUSED + '.*in zip', Call(ENCODE, ('a', 'zip'))),
    pickled(
        'the same bytes again and again',
        REFUSED + '.*more than it has bytes',
        Raw(b'](' + pickles.assemble(ENCODE) + b'q\1' + pickles.assemble(('a' * 99_999, 'latin1'))
            + b'q\0' + b'h\1h\0R' * 20_000 + b'e'),
    ),
    pickled('a bytearray of 1 TB', REFUSED, Call(Global('builtins.bytearray'), (1 << 40,))),
    pickled('bytes of 1 TB', REFUSED, Call(Global('builtins.bytes'), (1 << 40,))),
    pickled('a stride of 0', REFUSED + '.*of 16 elements', weight(size=(1 << 30,), stride=(0,))),
    pickled('a storage that is not there', REFUSED + '.*has none', weight(key='9')),
    pickled('a storage that is short', REFUSED + '.*and has 64', weight(count=1 << 40)),
    pickled('a negative size', REFUSED + '.*another way', weight(size=(-4,))),
    pickled('26 dimensions', REFUSED + '.*another way', weight(size=(1,) * 26, stride=(1,) * 26)),
    pickled(
        'an array of a huge shape',
        REFUSED + '.*NumPy array of shape',
        pickles.array(pickles.dtype('u1'), (1 << 2000,) * 90_000),
    ),
    pickled('an array of objects', REFUSED, pickles.array(pickles.OBJECT)),
    pickled('quantized numbers', REFUSED + '.*QInt8Storage', weight(kind='torch.QInt8Storage')),
    pickled('float8', REFUSED + '.*Float8', weight(kind='torch.Float8_e4m3fnStorage')),
    *(
        pickled(f'a tensor of {name}', REFUSED + rf'it asks for torch\._utils\.{name}',
                Call(Global(f'torch._utils.{name}'), ()))
        for name in ('_rebuild_sparse_tensor', '_rebuild_nested_tensor', '_rebuild_qtensor',
                     '_rebuild_meta_tensor_no_storage', '_rebuild_device_tensor_from_numpy')
    ),
    pickled('a tensor that is called wrongly', REFUSED + '.*other arguments',
            Call(Global('torch._utils._rebuild_tensor_v2'), (1, 2))),
    pickled('an attribute that shadows a method', REFUSED + '.*attributes of its own',
            Call(ORDERED, (), {'get': 1})),
    *(
        pickled(f'a call of {call.function.name}', REFUSED, call)
        for call in pickles.DANGEROUS[:8]
    ),
    *(
        raw(f'opcode {opcode}', b'\x80\x02' + content + b'.', f'{NO_CHECKPOINT}|{REFUSED}')
        for opcode, content in {
            'INST': b'(ios\nsystem\n', 'OBJ': b'(cos\nsystem\no', 'EXT1': b'\x82\x01',
            'EXT4': b'\x84\1\0\0\0', 'PERSID': b'Pa\n',
            'STACK_GLOBAL': b'\x8c\x02os\x8c\x06system\x93',
            'MEMOIZE': b'N\x94', 'FRAME': b'\x95\xff\xff\xff\xff\xff\xff\xff\x7fN',
            'LONG4': b'\x8b\xff\xff\xff\x7f1',
            'BINBYTES8': b'\x8e\xff\xff\xff\xff\xff\xff\xff\x7f1',
            'BYTEARRAY8': b'\x96\xff\xff\xff\xff\xff\xff\xff\x7f1', 'NEXT_BUFFER': b'\x97',
            'LONG': b'L' + b'9' * 100_000 + b'L\n', 'STRING': b"S'" + b'\\x00' * 99_999 + b"'\n",
            'DUP': b'N' + b'2' * 100_000, 'POP_MARK': b'(1',
        }.items()
    ),
    raw('nothing', b''),
    raw('safetensors', struct.pack('<Q', 60) + HEADER + bytes(4)),
    raw('HDF5', b'\x89HDF\r\n\x1a\n' + bytes(99)),
    raw('an empty archive', b'PK\5\6' + bytes(18)),
    raw('the beginning of an archive', b'PK\3\4' + bytes(99)),
    raw('zeros', bytes(1 << 20)),
    Case('a tar archive', r'cannot be read: .*|' + NO_CHECKPOINT, tarred),
    Case('two lists of members', REFUSED + '.*several contents', in_two_lists),
    Case('a wrong checksum', r'is not a checkpoint|cannot be read', damaged),
    Case('encrypted', r'is not a checkpoint|cannot be read', encrypted),
    Case('a storage of many tensors', REFUSED + '.*more than 100 tensors', many_views),
    pickled('deflated', REFUSED + '.*more than 2 times', weight(), storage=bytes(1 << 26),
            compression=zipfile.ZIP_DEFLATED),
    pickled('packed by LZMA', REFUSED + '.*packed in another way', weight(),
            compression=zipfile.ZIP_LZMA),
    pickled('two pickles', REFUSED + '.*several contents', weight(),
            more=[('archive/data.pkl', b'\x80\x02N.')]),
    pickled('TorchScript', REFUSED + '.*TorchScript', weight(),
            more=[('archive/constants.pkl', b'')]),
    *(Case(kind, f'is {kind}, but has to be a file', special(kind))
      for kind in ('a named pipe', 'a device')),
    Case('a link to itself', 'Too many levels of symbolic links', special('a link to itself')),
    saved('keys that are no text', 'has the key 7', lambda: {'state_dict': {7: torch.ones(1)}}),
    saved('a key with a forged line', r'has the key a\\nerror', lambda: {'net': {'a\nerror': 1}}),
    saved('a key that turns the line', r'has the key a\\u202e', lambda: {'net': {'a\u202e': 1}}),
    saved('weights in a list', r'state_dict is \[1\]', lambda: {'state_dict': [1]}),
    saved('meta of text', 'meta is a, but', lambda: {'meta': 'a', 'state_dict': {}}),
    saved('a sparse tensor', REFUSED, lambda: {'a': torch.eye(3).to_sparse()}),
    saved('a CSR tensor', REFUSED, lambda: {'a': torch.eye(3).to_sparse_csr()}),
    saved('a meta tensor', REFUSED, lambda: {'a': torch.ones(3, device='meta')}),
    saved('a module', REFUSED, lambda: nn.Linear(1, 1)),
    saved('a conjugate view', REFUSED, lambda: {'a': torch.ones(2, dtype=torch.complex64).conj()}),
    saved('a log of another length', REFUSED + '.*numbers in a row',
          lambda: history(_log_history=torch.ones(3).numpy())),
    saved('a log of a table', REFUSED + '.*numbers in a row',
          lambda: history(_log_history=torch.ones(2, 2).numpy())),
    saved('a log of no entries', REFUSED + '.*log history of 0', lambda: history(max_length=0)),
    saved('of protocol 4', NO_CHECKPOINT + '.*opcode', lambda: {'a': 1}, pickle_protocol=4),
    saved('of the older format', '', lambda: {'state_dict': {'a': torch.ones(9)}}, 0,
          _use_new_zipfile_serialization=False),
    loaded('not a number', 'not finite .*conv.weight', full('conv.weight', torch.nan)),
    loaded('infinite once cast', 'not finite .*conv.weight',
           full('conv.weight', 1e300, torch.float64)),
    loaded('bfloat16 that is infinite', 'not finite .*conv.bias',
           full('conv.bias', torch.inf, torch.bfloat16)),
    loaded('complex', 'complex numbers: .*conv.weight', full('conv.weight', 1j, torch.complex64)),
    loaded('a variance below 0', r'variances are below 0 \(1 tensors \(norm.running_var',
           full('norm.running_var', -1.0)),
    loaded('another shape', 'of another shape .conv.bias', put('conv.bias', torch.ones(()))),
    loaded('a key of two lines', r'the key a\\u2028b, but', put('a\u2028b', torch.ones(1))),
    loaded('more than the model has', r'1 unexpected \(a\)', put('a', torch.ones(1))),
    loaded('a value that is no tensor', r'are no tensors \(conv.bias\)', put('conv.bias', 7)),
    loaded('a counter below 0', '', put('norm.num_batches_tracked', torch.tensor(-5)), 0),
]  # fmt: skip
