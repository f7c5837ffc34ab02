"""Pickles of any content, put together by hand, and random ones that attack who reads them."""

import struct
import warnings
import zipfile
from dataclasses import dataclass, make_dataclass, replace
from typing import Any

from lesa_mmdet.checkpoints.pickles import STAND_INS

BUFFER = 'mmengine.logging.history_buffer.HistoryBuffer'
COMMAND = 'touch executed'


# What a pickle has besides plain data: a name that it asks for, a storage of tensors as a pickle of
# torch.save refers to it, and opcodes.
Global = make_dataclass('Global', ['name'], eq=False)
Storage = make_dataclass('Storage', ['pid'], eq=False)
Raw = make_dataclass('Raw', ['opcodes'], eq=False)


@dataclass(eq=False)
class Call:
    """What a pickle calls, and the state it gives the result."""

    function: Any
    args: Any
    state: Any = ()  # nothing
    new: bool = False  # cls.__new__(cls, *args), and not cls(*args)


@dataclass(eq=False)
class Items:
    """A dict, or what a call makes, with any keys: pairs."""

    pairs: Any
    of: Any = None


def assemble(node: Any) -> bytes:
    """Opcodes of protocol 2 for a tree of plain data and the classes above."""
    if isinstance(node, Raw):
        return node.opcodes
    if isinstance(node, Items):
        made = b'}' if node.of is None else assemble(node.of)
        return made + b'(' + b''.join(assemble(part) for pair in node.pairs for part in pair) + b'u'
    if isinstance(node, Global):
        return 'c{}\n{}\n'.format(*node.name.rsplit('.', 1)).encode()
    if isinstance(node, Storage):
        return assemble(node.pid) + b'Q'
    if isinstance(node, Call):
        called = assemble(node.function) + assemble(node.args) + (b'\x81' if node.new else b'R')
        return called if node.state == () else called + assemble(node.state) + b'b'
    if isinstance(node, bytes):
        return assemble(Call(Global('_codecs.encode'), (node.decode('latin1'), 'latin1')))
    if isinstance(node, str):
        return b'X' + struct.pack('<I', len(node.encode())) + node.encode()
    if node is None or isinstance(node, bool):
        return {None: b'N', True: b'\x88', False: b'\x89'}[node]
    if isinstance(node, int):
        data = node.to_bytes(node.bit_length() // 8 + 1, 'little', signed=True)
        if len(data) > 255:
            return b'\x8b' + struct.pack('<I', len(data)) + data
        return b'\x8a' + bytes([len(data)]) + data
    if isinstance(node, float):
        return b'G' + struct.pack('>d', node)
    if isinstance(node, dict):
        items = b''.join(assemble(part) for item in node.items() for part in item)
        return b'}(' + items + b'u'
    parts = b''.join(map(assemble, node))
    return b'](' + parts + b'e' if isinstance(node, list) else b'(' + parts + b't'


def write(
    path,
    node: Any,
    storage: bytes = bytes(64),
    pickled: bytes | None = None,
    compression: int = zipfile.ZIP_STORED,
    more: Any = (),
) -> str:
    """Write a file as torch.save does: a pickle of a tree, or of these bytes, and more files."""
    pickled = b'\x80\x02' + assemble(node) + b'.' if pickled is None else pickled
    with warnings.catch_warnings(), zipfile.ZipFile(path, 'w', compression) as archive:
        warnings.simplefilter('ignore')  # that two files have the same name
        archive.writestr('archive/data.pkl', pickled)
        archive.writestr('archive/byteorder', 'little')
        archive.writestr('archive/data/0', storage)
        archive.writestr('archive/version', '3\n')
        for name, content in more:
            archive.writestr(name, content)
    return str(path)


def write_legacy(path, node: Any, keys: Any = ('0',), storages: Any = ((16, bytes(64)),)) -> str:
    """Write a file as torch.save did before it was an archive."""
    system = {'protocol_version': 1001, 'little_endian': True, 'type_sizes': {'int': 4}}
    nodes = 0x1950A86A20F9469CFC6C, 1001, system, node, list(keys)
    with open(path, 'wb') as file:
        for part in nodes:
            file.write(b'\x80\x02' + assemble(part) + b'.')
        for count, content in storages:
            file.write(struct.pack('<q', count) + content)
    return str(path)


def graph(levels: int, kind: str = 'tuple') -> Raw:
    """Containers that have the next one twice: small in a file, and exponential for who walks."""
    if kind == 'tuple':
        steps = (struct.pack('<BIBIB', 114, i, 106, i, 0x86) for i in range(levels))
        return Raw(b')' + b''.join(steps))
    begin, end = {'list': (b'](', b'e'), 'dict': (b'}(', b'u')}[kind]
    keys = (assemble('a'), assemble('b')) if kind == 'dict' else (b'', b'')
    inner = b'N'
    for i in range(levels):
        twice = struct.pack('<BI', 114, i), struct.pack('<BI', 106, i)
        inner = begin + keys[0] + inner + twice[0] + keys[1] + twice[1] + end
    return Raw(inner)


def repeated(node: Any, call: Any, times: int) -> Raw:
    """A list of calls with the same argument, which the file has once."""
    return Raw(b'](' + assemble(node) + b'q\0' + (assemble(call) + b'h\0\x85R') * times + b'e')


def dtype(code: Any = 'f8', state: Any = (3, '<', None, None, None, -1, -1, 0)) -> Call:
    return Call(Global('numpy.dtype'), (code, False, True), state)


OBJECT = Call(Global('numpy.dtype'), ('O', False, True))


def array(kind: Any, shape: Any = (1,), data: Any = b'A' * 8, core: str = '_core') -> Call:
    begin = Global(f'numpy.{core}.multiarray._reconstruct')
    args = (Global('numpy.ndarray'), (0,), b'b')
    return Call(begin, args, (1, shape, kind, False, data))


def number(kind: Any, data: Any, core: str = '_core') -> Call:
    return Call(Global(f'numpy.{core}.multiarray.scalar'), (kind, data))


def history(values: Any, counts: Any, **state: Any) -> Call:
    state = dict(max_length=1000, _log_history=values, _count_history=counts, **state)
    return Call(Global(BUFFER), (), state, new=True)


def tensor(offset: Any = 0, size: Any = (4,), stride: Any = (1,), **storage: Any) -> Call:
    hooks = Call(Global('collections.OrderedDict'), ())
    rebuild = Global('torch._utils._rebuild_tensor_v2')
    return Call(rebuild, (pid(**storage), offset, size, stride, False, hooks))


def pid(kind: Any = 'torch.FloatStorage', key: Any = '0', location: Any = 'cpu', count: Any = 16):
    return Storage(
        ('storage', Global(kind) if isinstance(kind, str) else kind, key, location, count)
    )


# The report of 2026: bytes of the file become pointers to objects, which HistoryBuffer follows.
OBJECTS_FROM_BYTES = Call(
    Global(BUFFER),
    (
        Call(
            Global('numpy.ndarray'),
            ((1,), dtype(state=(3, '<', (OBJECT, (1,)), None, None, -1, -1, 0)), b'A' * 8),
        ),
        [1],
    ),
)

DANGEROUS = [
    Call(Global('os.system'), (COMMAND,)),
    Call(Global('posix.system'), (COMMAND,)),
    Call(Global('nt.system'), (COMMAND,)),
    Call(Global('subprocess.Popen'), (['touch', 'executed'],)),
    Call(Global('builtins.eval'), (f'__import__("os").system("{COMMAND}")',)),
    Call(Global('builtins.exec'), (f'import os; os.system("{COMMAND}")',)),
    Call(Global('__builtin__.eval'), (f'__import__("os").system("{COMMAND}")',)),
    Call(Global('builtins.open'), ('executed', 'w')),
    Call(Global('builtins.__import__'), ('antigravity',)),
    Call(Global('runpy._run_code'), (f'import os; os.system("{COMMAND}")', {})),
    Call(Global('pydoc.pipepager'), ('', COMMAND)),
    Call(Global('numpy.testing._private.utils.runstring'), ('open("executed", "w")', {})),
    Call(Global('numpy.load'), ('executed.npy', None, True)),
    Call(Global('numpy.fromfile'), ('executed',)),
    Call(Global('numpy.memmap'), ('executed', 'uint8', 'w+', 0, (8,))),
    Call(Global('torch.load'), ('executed', None, None)),
    Call(Global('torch.jit.load'), ('executed',)),
    Call(Global('torch.hub.load'), ('.', 'executed', 'local')),
    Call(Global('torch._inductor.codecache.PyCodeCache.load'), ('open("executed", "w")',)),
    Call(Global('mmengine.config.Config.fromstring'), ('open("executed", "w")', '.py')),
    Call(Global('mmengine.config.Config.fromfile'), ('executed.py',)),
    Call(Global('mmengine.fileio.load'), ('executed.pkl',)),
    Call(Global('pickle.loads'), (b'cos\nsystem\n(X\x0e\x00\x00\x00touch executedtR.',)),
    Call(
        Global('copyreg._reconstructor'),
        (Global('os._wrap_close'), Global('builtins.object'), None),
    ),
    Call(Call(Global('builtins.getattr'), (Global('os.path'), 'system')), (COMMAND,)),
    Call(Call(Global('builtins.getattr'), (Global(BUFFER), '__init__')), ([1], [1])),
    Call(Call(Global('builtins.getattr'), (Global(BUFFER), 'mean')), (Global(BUFFER),)),
    Call(Call(Global('builtins.getattr'), (Global('numpy.ndarray'), 'tofile')), ('executed',)),
    Call(Call(Global('operator.attrgetter'), ('system',)), (Global('os.path'),)),
    Call(Call(Global('functools.partial'), (Global('os.system'), COMMAND)), ()),
]


class Attacks:
    """Random pickles: of everything that a reader allows, and of what it must not, in wrong ways.

    Args:
        random (random.Random): Where choices come from.
    """

    def __init__(self, random):
        self.random = random
        self.depth = 0
        self.kinds = [
            self.array,
            self.number,
            self.history,
            self.tensor,
            self.rebuilt,
            self.any_call,
            self.dangerous,
            self.container,
            self.graph,
            self.codecs,
            self.key,
            self.stride,
            self.named,
            self.copies,
        ]

    def node(self) -> Any:
        """A tree of one kind of attack, by itself or where checkpoints have such."""
        node = self.random.choice(self.kinds)()
        place = self.random.choice(['state_dict', 'meta', 'message_hub', 'optimizer', None])
        return {place: {'x': node}} if place else node

    def pick(self, *choices: Any) -> Any:
        chosen = self.random.choice(choices)
        while callable(chosen) and self.depth > 6:
            chosen = self.random.choice([*choices, None])
        self.depth += 1
        chosen = chosen() if callable(chosen) else chosen
        self.depth -= 1
        return chosen

    def integer(self) -> int:
        bits = self.pick(1, 3, 8, 16, 31, 32, 33, 62, 63, 64, 65, 128)
        return self.pick(1, -1) * (
            self.pick(0, 1 << bits, (1 << bits) - 1, self.random.getrandbits(4))
        )

    def junk(self) -> Any:
        numbers = self.integer, self.integer, self.random.random, float('nan'), True, False, None
        return self.pick(
            *numbers,
            '',
            'cpu',
            'latin1',
            b'',
            b'AAAAAAAA',
            lambda: bytes(self.random.getrandbits(8) for _ in range(self.random.randrange(64))),
            lambda: tuple(self.junk() for _ in range(self.random.randrange(4))),
            lambda: [self.junk() for _ in range(self.random.randrange(4))],
            lambda: {self.pick('a', 1, None): self.junk()},
            lambda: Global(self.random.choice([*STAND_INS, 'torch.Tensor', 'builtins.set'])),
            self.dtype,
            self.tensor,
        )

    def code(self) -> Any:
        plain = 'f8', 'f4', 'i8', 'b1', 'c16', '?', 'int32', '>i4'
        return self.pick(
            *plain,
            'O',
            'O8',
            'V8',
            'S8',
            'U2',
            'M8[ns]',
            'm8',
            'f16',
            'f8,O',
            '3f8',
            '(2,)O',
            self.junk,
        )

    def dtype(self) -> Any:
        """A dtype that is more than it says: nested, structured, with objects inside."""
        inner = self.pick(OBJECT, dtype(), 'O', self.dtype)
        fields = {'a': (inner, self.integer()), 'b': (OBJECT, 0)}
        state = [
            self.pick(3, 3, 4, self.junk),
            self.pick('<', '>', '|', '=', self.junk),
            self.pick(None, (inner, (1,)), (OBJECT, (1,)), (inner, self.shape()), self.junk),
            self.pick(None, None, ('a', 'b'), self.junk),
            self.pick(None, None, fields, self.junk),
            self.pick(-1, self.integer),
            self.pick(-1, 1, 8, self.integer),
            self.pick(0, 63, 255, self.integer),
        ]
        cut = self.random.choice([8, 8, 8, 8, 9, 7, 3, 0])
        state = (*state, self.junk())[:cut]
        return self.pick(
            dtype(self.code()), dtype('f8', state), dtype(self.code(), state), self.junk
        )

    def shape(self) -> Any:
        sizes = 0, 1, 2, 8, self.integer, self.junk
        shape = tuple(self.pick(*sizes) for _ in range(self.random.randrange(5)))
        return self.pick(shape, shape, (1,), list(shape), self.junk)

    def data(self) -> Any:
        size = self.random.choice([0, 1, 7, 8, 9, 16, 4096])
        return self.pick(b'A' * size, bytes(size), [b'A' * size], 'A' * size, self.junk)

    def array(self) -> Any:
        core = self.pick('core', '_core')
        begin = Global(f'numpy.{core}.multiarray._reconstruct')
        kind = self.pick(Global('numpy.ndarray'), Global('numpy.matrix'), Global(BUFFER), self.junk)
        kinds = self.dtype(), dtype(), OBJECT, dtype('i4')
        state = (
            self.pick(1, self.junk),
            self.shape(),
            self.pick(*kinds),
            self.pick(False, True, 7),
        )
        built = Call(begin, (kind, self.shape(), self.pick(b'b', b'O')), (*state, self.data()))
        strides = self.shape()
        direct = (self.shape(), self.dtype(), self.data(), self.integer(), strides)
        twice = array(dtype(), (1,), b'A' * 8, core)
        again = Call(Global('builtins.set'), ([],), (1, (1,), OBJECT, False, b'A' * 8))
        return self.pick(
            built,
            built,
            array(self.dtype(), self.shape(), self.data(), core),
            array(dtype(), self.shape(), self.data(), core),
            array(dtype(), (1,), self.data(), core),
            twice,
            again,
            Call(Global('numpy.ndarray'), direct[: self.random.randrange(6)]),
            Call(Global('numpy.ndarray'), (), (1, self.shape(), self.dtype(), False, self.data())),
            Call(begin, (kind, (0,), b'b')),
        )

    def number(self) -> Any:
        core = self.pick('core', '_core')
        args = self.pick(self.dtype(), dtype(), OBJECT), self.data()
        return Call(Global(f'numpy.{core}.multiarray.scalar'), args[: self.pick(2, 2, 2, 1, 0)])

    def history(self) -> Any:
        parts = [self.pick(self.array(), array(dtype()), self.junk()) for _ in range(2)]
        get = Call(Global('builtins.getattr'), (Global(BUFFER), self.pick('mean', '__init__', 'x')))
        methods = {
            'mean': self.pick(get, Global('torch.Tensor'), self.junk),
            self.pick('x', 'min'): 1,
        }
        state = history(*parts, statistics_methods=methods)
        return self.pick(
            state,
            state,
            OBJECTS_FROM_BYTES,
            Call(Global(BUFFER), (*parts, self.integer())),
            Call(Global(BUFFER), tuple(parts), state.state, new=True),
            Call(Global(BUFFER), (), self.junk(), new=True),
            Call(
                Global(BUFFER), (), {'max_length': self.junk(), '__class__': self.junk()}, new=True
            ),
            Call(Global(BUFFER), (), ({'a': 1}, {'restore': self.junk()}), new=True),
            {history(array(dtype()), array(dtype())): 1},
        )

    def storage(self) -> dict:
        kinds = ['Float', 'Double', 'Byte', 'Bool', 'ComplexDouble', 'QInt8', 'BFloat16', 'Untyped']
        return dict(
            kind=self.pick(f'torch.{self.pick(*kinds)}Storage', 'torch.storage.UntypedStorage', 1),
            key=self.pick('0', '0', '0', '1', '../../0', self.junk),
            location=self.pick('cpu', 'cpu', 'cuda:0', 'meta', self.junk),
            count=self.pick(16, 4, 17, self.integer, self.junk),
        )

    def tensor(self) -> Any:
        strides = tuple(self.pick(1, 0, -1, self.integer) for _ in range(self.random.randrange(4)))
        wild = (self.pick(0, 1, self.integer), self.shape(), strides)
        return self.pick(
            tensor(*wild),
            tensor(*wild, **self.storage()),
            tensor(**self.storage()),
            tensor(self.integer(), (4,), (1,)),
            tensor(0, (self.integer(),), (self.integer(),)),
        )

    def rebuilt(self) -> Any:
        """Tensors of all kinds that torch allows, though detectors have none of them."""
        storage = pid(**self.storage())
        hooks = Call(Global('collections.OrderedDict'), ())
        layout = Call(
            Global('torch.serialization._get_layout'), (self.pick('torch.sparse_coo', 'x'),)
        )
        indices = tensor(0, (2, 3), (3, 1), kind='torch.LongStorage', count=8)
        nested = (tensor(), indices, indices, self.pick(indices, tensor()))
        quantizer = (
            Global('torch.per_tensor_affine'),
            self.pick(1.0, self.junk),
            self.pick(0, self.junk),
        )
        args = {
            '_rebuild_tensor': (storage, self.integer(), self.shape(), self.shape()),
            '_rebuild_parameter': (self.tensor(), self.pick(True, self.junk), hooks),
            '_rebuild_sparse_tensor': (layout, (indices, self.tensor(), self.shape(), self.junk())),
            '_rebuild_qtensor': (
                storage,
                self.integer(),
                self.shape(),
                self.shape(),
                quantizer,
                0,
                hooks,
            ),
            '_rebuild_nested_tensor': nested,
            '_rebuild_meta_tensor_no_storage': (
                Global('torch.float32'),
                self.shape(),
                self.shape(),
                False,
            ),
            '_rebuild_device_tensor_from_numpy': (self.array(), self.junk(), self.junk(), False),
        }
        name = self.random.choice(list(args))
        legacy = Call(Global('torch.FloatTensor'), (), (storage, *self.junk_tuple(3)))
        state = Call(
            Global('torch.Tensor'), (), (storage, self.integer(), self.shape(), self.shape())
        )
        return self.pick(Call(Global(f'torch._utils.{name}'), args[name]), legacy, state)

    def junk_tuple(self, length: int) -> tuple:
        return tuple(self.junk() for _ in range(length))

    def any_call(self) -> Any:
        """Anything that is allowed, called with anything."""
        names = [
            *STAND_INS,
            'collections.OrderedDict',
            'torch.Size',
            'torch.device',
            'builtins.set',
        ]
        args = self.junk_tuple(self.random.randrange(5))
        state = self.pick((), self.junk, self.dtype, {'restore': 1}, ({}, {'dtype': 1}))
        return Call(Global(self.random.choice(names)), args, state, new=self.pick(True, False))

    def dangerous(self) -> Any:
        call = self.random.choice(DANGEROUS)
        return self.pick(
            call, [call], {'a': call}, replace(call, new=True), replace(call, state={})
        )

    def container(self) -> Any:
        """Data where it does not belong, and very deep."""
        inner = self.pick(array(dtype()), dtype(), Global('numpy.ndarray'), self.history())
        deep = inner
        for _ in range(self.random.randrange(100)):
            deep = self.pick([deep], (deep,), {'a': deep})
        return self.pick(
            deep, Call(Global('builtins.set'), ([inner],)), Call(Global('torch.Size'), ([inner],))
        )

    def graph(self) -> Any:
        """A graph where something is hashed, compared, walked over, or called with it."""
        found = graph(self.pick(3, 30, 200, 3000), self.pick('tuple', 'tuple', 'list', 'dict'))
        hooks = Call(Global('collections.OrderedDict'), ())
        return self.pick(
            found,
            Items([(found, 1)]),
            Items([(found, 1)], of=hooks),
            Call(Global('builtins.set'), ([found],)),
            Call(Global('builtins.set'), (found,)),
            Call(Global('collections.OrderedDict'), ([[found, 1]],)),
            Call(Global('collections.Counter'), (found,)),
            Call(Global('torch.Size'), (found,)),
            Call(hooks.function, (), {'_metadata': found}),
            {'meta': {'dataset_meta': {'classes': found}, 'epoch': found}},
            tensor(0, found, found),
            tensor(key=found),
            Storage(found),
            Raw(b']q\0h\0a'),  # a list in itself
            Raw(b'}q\0' + assemble('a') + b'h\0s'),
            Raw(b']q\0(h\0h\0\x86e'),
        )

    def codecs(self) -> Any:
        """Bytes that become more and more."""
        encode = Global('_codecs.encode')
        text = 'é' * self.random.choice([1, 100, 10_000])
        names = 'latin1', 'utf-16', 'utf-32', 'idna', 'punycode', 'hex', 'unicode_escape', 'x', 7
        node = text
        for _ in range(self.random.randrange(1, 30)):
            node = Call(encode, (node, self.random.choice(names)))
        return self.pick(
            node,
            Call(encode, (text, 'latin1', self.pick('ignore', 'xmlcharrefreplace'))),
            repeated((text, 'latin1'), encode, self.random.randrange(20_000)),
            Call(Global('builtins.bytearray'), (self.integer(),)),
            Call(Global('builtins.bytes'), (self.integer(),)),
            Call(Global('builtins.bytearray'), (b'a' * 99,)),
        )

    def key(self) -> Any:
        """Keys and elements that are no text or number."""
        key = self.pick(
            *(None, b'a', (), (1, 2), [], {}, 'a' * 99_999, '\x1b[2J', '\ud7ff', 1 << 64),
            *(self.junk, self.tensor, self.dtype, self.storage_alone, float('nan')),
        )
        pairs = [(key, self.pick(tensor(), self.junk))]
        return self.pick(
            Items(pairs),
            {'state_dict': Items(pairs)},
            Items(pairs, of=Call(Global('collections.OrderedDict'), ())),
            Call(Global('collections.OrderedDict'), ([list(pairs[0])],)),
            Call(Global('builtins.set'), ([key],)),
            Call(Global('collections.Counter'), (Items(pairs),)),
        )

    def storage_alone(self) -> Any:
        return pid(**self.storage())

    def stride(self) -> Any:
        """Tensors that are larger than their storages."""
        sizes = (1, 2, 16, 1 << 20, 1 << 31, 1 << 40, self.integer)
        size = tuple(self.pick(*sizes) for _ in range(self.random.randrange(1, 30)))
        strides = tuple(self.pick(0, 0, 1, 1 << 40, self.integer) for _ in size)
        one = tensor(self.pick(0, 15, 16, self.integer), size, strides)
        parameter = Global('torch._utils._rebuild_parameter')
        hooks = Call(Global('collections.OrderedDict'), ())
        hook = Items([('a', Global('torch.Tensor'))], of=hooks)
        return self.pick(
            one,
            {'state_dict': {'weight': one}},
            Call(parameter, (one, True, hooks)),
            Call(parameter, (tensor(), True, hook)),
            Call(one.function, (*one.args[:5], hook)),
            Call(one.function, (*one.args[:5], hooks, {'conj': True})),
            Call(parameter, (tensor(), True, hooks), {'get': 1}),
        )

    def named(self) -> Any:
        """Names that are long, or move the cursor of a terminal."""
        names = 'a' * 50_000, '\x1b[2J', 'torch.' * 9000, 'a b', 'os\x1b', 'torch.os.system', 'a\rb'
        name = f'{self.pick(*names)}.{self.pick("b", "OrderedDict", *names)}'
        return self.pick(Global(name), Call(Global(name), ()), {self.pick(*names): Global(name)})

    def copies(self) -> Any:
        """The same again and again, which the file has once."""
        many = [1] * self.random.randrange(1, 2000)
        times = self.random.randrange(5000)
        call = self.pick('builtins.set', 'collections.OrderedDict', 'torch.Size', 'numpy.ndarray')
        begin = Call(Global('numpy._core.multiarray._reconstruct'), (Global('numpy.ndarray'), ()))
        state = (1, (4000,), dtype('u1'), False, b'A' * 4000)
        arrays = b'](' + assemble(state) + b'q\0' + (assemble(begin) + b'h\0b') * times + b'e'
        return self.pick(
            repeated(self.pick(many, tuple(many)), Global(call), times),
            repeated([[str(i), i] for i in many], Global('collections.OrderedDict'), times),
            Raw(arrays),
            {'state_dict': {str(i): tensor() for i in range(times // 10)}},
            Raw(b']' * self.random.randrange(200_000)),
            Raw(b'(' * self.random.randrange(200_000) + b't' * 100),
            Raw(b'](' + b'N' * self.random.randrange(200_000) + b'e'),
        )


def mutate(data: bytes, random) -> bytes:
    """Change a few bytes, cut, or copy a part of it to another place."""
    data = bytearray(data)
    for _ in range(random.randrange(1, 6)):
        place, length = random.randrange(len(data)), random.randrange(1, 40)
        how = random.randrange(4)
        if how == 0:
            data[place] = random.getrandbits(8)
        elif how == 1:
            data[place] = random.choice(b'cRb\x81tQu}](.q0X\x8a\x85\x86\x87')
        elif how == 2:
            start = random.randrange(len(data))
            data[place:place] = data[start : start + length]
        else:
            del data[place : place + length]
        if not data:
            return b'.'
    return bytes(data)
