"""Looking a checkpoint file through before anything of it is run.

torch's weights-only unpickler lets no file run code, but lets it hang the process or take all of
its memory: hashes of tuples in tuples take exponential time, members of the archive may be
deflated, tensors may be larger than their storages, a call may be repeated. So each opcode of the
pickle is looked at once, with stand-ins for what it would make. What passes can be read in time and
memory in proportion to the file: names, opcodes and calls are those that torch.save writes, nothing
contains itself or much more than it has bytes, and tensors lie in their storages, those in the
file.
"""

import math
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pickletools import genops
from typing import Any, BinaryIO
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

from ..utils.errors import UserValueError
from ..utils.text import shown
from .pickles import STAND_INS, STATISTICS, Rejected

MAX_OPCODES = 1_000_000  # a training's checkpoint of 1,600 storages has 60,000
MAX_DEPTH = 100  # of containers in containers
MAX_ENTRIES = 4_000_000  # of a container, those of shared containers counted where they are used
MAX_UNPACKED = 2  # times the size of the file
MAX_KEY = 1000  # characters of a key: long ones that are alike take long to compare
MAX_SHARED = 100  # tensors that lie in all of one storage, or more in parts of it
MAX_ARGUMENTS = 10  # of a call
MAX_COPIED = 16 << 20  # bytes, and twice the size of the file
_ENTRY = 100  # bytes that an entry takes in a dict or a set

# Bytes of an element by the storage's name in a file.
STORAGES = {
    f'torch.{name}Storage': size
    for size, names in {
        1: ('Byte', 'Char', 'Bool'),
        2: ('Half', 'BFloat16', 'Short'),
        4: ('Float', 'Int'),
        8: ('Double', 'Long', 'ComplexFloat'),
        16: ('ComplexDouble',),
    }.items()
    for name in names
}
DTYPES = {
    f'torch.{name}'
    for name in (
        *('bool', 'uint8', 'int8', 'int16', 'int32', 'int64'),
        *('bfloat16', 'float16', 'float32', 'float64', 'complex64', 'complex128'),
    )
}
_LOCATION = re.compile(r'(?!meta)[a-z]{2,12}(:\d{1,3})?')
# Ends of archives: the list of members, and for large ones where it is and how long.
_END = struct.Struct('<4s4H2LH')
_LOCATOR = struct.Struct('<4sLQL')
_RECORD = struct.Struct('<4sQ2H2L4Q')
_MAGIC = 0x1950A86A20F9469CFC6C  # what a file of torch.save began with before it was a zip archive


@dataclass(eq=False, slots=True)
class Node:
    """Stands for an object that a pickle makes.

    Attributes:
        kind (str): 'tuple', 'list', 'dict', or the name of what was called.
        parts (Sequence): Entries of a tuple or list, the keys of a dict, or what else has to be
            known of it.
        depth (int): Levels of containers in it.
        entries (int): Number of objects in it.
        raw (bool): Whether it may only be part of a call: a name, a storage, a tuple of them.
        closed (bool): Whether it is part of another object, and so stays as it is.
    """

    kind: str
    parts: Any = ()
    depth: int = 0
    entries: int = 1
    raw: bool = False
    closed: bool = False


def scan_archive(file: BinaryIO) -> None:
    """Look an archive of torch.save through.

    Args:
        file (BinaryIO): The file.

    Raises:
        Rejected: If it is not what torch.save writes.
        BadZipFile: If it is no archive.
    """
    size = file.seek(0, 2)
    with ZipFile(file) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > MAX_UNPACKED * size:
            raise Rejected(f'it unpacks to more than {MAX_UNPACKED} times its size')
        if any(member.compress_type not in (ZIP_STORED, ZIP_DEFLATED) for member in members):
            raise Rejected('it is packed in another way than torch.save has')
        folder = members[0].filename.partition('/')[0] if members else ''
        # Only of such archives all readers see the same: torch's takes a and A for one name, knows
        # no names but the first of each member, and follows the offset of the list of members.
        names = {member.filename.lower() for member in members}
        if (
            len(names) < len(members)
            or any(member.filename != member.orig_filename for member in members)
            or (members and min(m.header_offset for m in members))
            or not _has_one_list(file, archive.start_dir)
        ):
            raise Rejected('it is an archive of several contents')
        if f'{folder}/constants.pkl' in archive.NameToInfo:
            raise Rejected('it is a program of TorchScript')
        prefix = f'{folder}/data/'
        sizes = {
            member.filename.removeprefix(prefix): member.file_size
            for member in members
            if member.filename.startswith(prefix)
        }
        pickled = archive.getinfo(f'{folder}/data.pkl')
        _Scan(pickled.file_size, sizes).run(BytesIO(archive.read(pickled)))


def _has_one_list(file: BinaryIO, start: int) -> bool:
    """Whether all that an archive's end says of its list of members leads to the same one.

    Args:
        file (BinaryIO): The archive.
        start (int): Where the list begins.
    """
    end = file.seek(-_END.size, 2)
    signature, *_, size, offset, comment = _END.unpack(file.read(_END.size))
    if signature != b'PK\5\6' or comment:
        return False
    file.seek(max(0, end - _LOCATOR.size))
    signature, _, record, _ = _LOCATOR.unpack(file.read(_LOCATOR.size))
    if signature == b'PK\6\7':
        end -= _LOCATOR.size + _RECORD.size
        if record != end or end < 0:
            return False
        file.seek(end)
        found = _RECORD.unpack(file.read(_RECORD.size))
        # What does not fit into the short numbers is in the long ones alone.
        for short, long in zip((size, offset), found[-2:], strict=True):
            if short not in (long, 0xFFFFFFFF):
                return False
        size, offset = found[-2:]
    return offset == start and offset + size == end


def scan_legacy(file: Any) -> None:
    """Look a file of torch.save through as it was before it was an archive.

    Args:
        file (Any): The file, open for reading bytes.

    Raises:
        Rejected: If it is not what torch.save wrote.
        ValueError: If it is no such file.
    """
    size = file.seek(0, 2)
    file.seek(0)
    file = _Clamped(file, size)
    if _Scan(size).run(file) != _MAGIC:
        raise UserValueError('it begins with something else')
    for _ in range(2):  # the version of the format, the system
        _Scan(size).run(file)
    scan = _Scan(size)
    scan.run(file)
    keys = _Scan(size).run(file)
    if not (isinstance(keys, Node) and keys.kind == 'list'):
        raise UserValueError('no list of storages')
    if sorted(map(str, keys.parts)) != sorted(scan.storages):
        raise Rejected('it has other storages than its tensors ask for')
    for key in keys.parts:
        (count,) = struct.unpack('<q', file.read(8))
        kind, expected = scan.storages[key]
        if count != expected or file.seek(count * STORAGES[kind], 1) > size:
            raise Rejected('its storages are longer than the file')


class _Clamped:
    """A file that allocates no more for a reading than it has bytes, whatever it is asked for."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size
        self.readline, self.tell, self.seek = file.readline, file.tell, file.seek

    def read(self, count: int) -> bytes:
        """Read bytes, fewer at the end."""
        return self._file.read(min(count, self._size - self._file.tell()))


class _Scan:
    """Walks over the opcodes of a pickle.

    Args:
        size (int): Bytes of the pickle, or more.
        sizes (dict[str, int], optional): Bytes of the storages in the file, if they are known.

    Attributes:
        storages (dict[str, tuple[str, int]]): Kinds and numbers of elements of what was asked for.
    """

    def __init__(self, size: int, sizes: dict[str, int] | None = None) -> None:
        self.sizes, self.storages = sizes, {}
        self._budget = 2 * size + MAX_COPIED  # bytes that calls may copy
        self._used = {}  # elements of storages, those of several tensors counted for each
        self._stack, self._marks, self._memo = [], [], {}

    def run(self, stream: Any) -> Any:
        """Look at one pickle; returns what stands for its object.

        Raises:
            Rejected: If it asks for what is not allowed.
            ValueError, LookupError: If it is broken.
        """
        for number, (opcode, argument, _) in enumerate(genops(stream)):
            if opcode.name == 'STOP':
                break
            if number >= MAX_OPCODES:
                raise Rejected(f'it has more than {MAX_OPCODES:,} opcodes')
            step = _STEPS.get(opcode.name)
            if step is None:
                raise UserValueError(f'opcode {opcode.name}')
            step(self, argument)
        (result,) = self._stack
        self._use(result)
        return result

    def pop(self, count: int | None = None) -> list:
        """What is on top of the stack: some entries, or those down to the mark."""
        start = self._marks.pop() if count is None else len(self._stack) - count
        if start < 0:
            raise UserValueError('not so many on the stack')
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _use(self, part: Any, raw: bool = False) -> None:
        """Make something part of another object."""
        if isinstance(part, Node):
            if part.raw and not raw:
                raise Rejected(f'it asks for {part.parts if part.kind == "name" else part.kind}')
            part.closed = True

    def _grow(self, node: Node, parts: Sequence) -> None:
        """Add entries to a node."""
        for part in parts:
            self._use(part, raw=node.raw)
            if part is node:
                raise Rejected('it has a container that contains itself')
            if isinstance(part, Node):
                node.depth = max(node.depth, part.depth + 1)
                node.entries += part.entries
        node.entries += len(parts)
        if node.depth > MAX_DEPTH:
            raise Rejected(f'it has containers in containers, more than {MAX_DEPTH} levels deep')
        if node.entries > MAX_ENTRIES:
            raise Rejected(f'it has a container of more than {MAX_ENTRIES:,} entries')

    def _open(self, *kinds: str) -> Node:
        """What is on top of the stack, if something may be added to it."""
        node = self._stack[-1]
        if not isinstance(node, Node) or node.kind not in kinds:
            raise Rejected(f'it changes {_name(node)}')
        if node.closed:
            raise Rejected('it has a container that contains itself, or changes one later')
        return node

    def push(self, value: Any) -> None:
        """A number, None, True or False."""
        self._stack.append(value)

    def text(self, value: str) -> None:
        """Text of Python 2."""
        if not value.isascii():
            raise Rejected('it has bytes for text')
        self._stack.append(value)

    def name(self, value: str) -> None:
        """A name of a module."""
        name = re.sub('^__builtin__ ', 'builtins ', value).replace(' ', '.')
        if name not in _CALLS and name not in STORAGES and name not in DTYPES:
            if name not in STAND_INS:
                raise Rejected(f'it asks for {shown(name.removeprefix("builtins."))}')
        self._stack.append(Node('name', name, raw=name not in DTYPES))

    def put(self, index: int) -> None:
        """Remember what is on top of the stack."""
        self._memo[index] = self._stack[-1]

    def get(self, index: int) -> None:
        """What was remembered."""
        self._stack.append(self._memo[index])

    def mark(self, _: None) -> None:
        """The beginning of some entries."""
        self._marks.append(len(self._stack))

    def make_tuple(self, items: Sequence) -> None:
        """A tuple, which may be that of a call's arguments."""
        node = Node('tuple', items)
        node.raw = any(isinstance(item, Node) and item.raw for item in items)
        self._grow(node, items)
        self._stack.append(node)

    def append(self, items: Sequence) -> None:
        """Add to a list."""
        node = self._open('list')
        self._grow(node, items)
        node.parts.extend(items)

    def set_items(self, items: Sequence) -> None:
        """Add to a dict."""
        node = self._open(*_DICTS)
        if len(items) % 2:
            raise UserValueError('a key without a value')
        self._require_keys(items[::2])
        self._grow(node, items)
        node.parts.extend(items[::2])

    def _require_keys(self, keys: Sequence) -> None:
        for key in keys:
            if not isinstance(key, (str, int, float)):  # whose hash is quick, once
                raise Rejected(f'it has {_name(key)} as the key of a dict or in a set')
            # Python compares a key with all of the same hash, which many long numbers may have.
            is_long = len(key) > MAX_KEY if isinstance(key, str) else _bits(key) > 64
            if is_long:
                raise Rejected(f'it has keys as long as {shown(key)}')

    def call(self, _: None) -> None:
        """Call what has a name."""
        arguments, function = self._stack.pop(), self._stack.pop()
        if _kind(arguments) != 'tuple' or _kind(function) != 'name':
            raise Rejected(f'it calls {_name(function)} with {_name(arguments)}')
        name = function.parts
        if len(arguments.parts) > MAX_ARGUMENTS:
            raise Rejected(f'it calls {name} with other arguments than torch.save')
        if name in _CALLS:
            try:
                result = _CALLS[name](self, *arguments.parts)
            except TypeError as error:
                raise Rejected(f'it calls {name} with other arguments than torch.save') from error
        elif name in STAND_INS:
            result = Node(name, arguments.parts, arguments.depth, arguments.entries)
            self._spend(*arguments.parts)
        else:
            raise Rejected(f'it calls {name}')
        self._stack.append(result)

    def new(self, _: None) -> None:
        """An object without arguments."""
        arguments, kind = self._stack.pop(), self._stack.pop()
        if _kind(kind) != 'name' or kind.parts != _HISTORY or arguments.parts:
            raise Rejected(f'it makes {_name(kind)}')
        self._stack.append(Node(_HISTORY))

    def build(self, _: None) -> None:
        """Give an object its state."""
        state = self._stack.pop()
        node = self._open('collections.OrderedDict', *STAND_INS)
        if node.kind == 'collections.OrderedDict' and (
            _kind(state) != 'dict' or state.parts != ['_metadata']
        ):
            raise Rejected('it gives a dict attributes of its own')
        if node.kind == _HISTORY and _kind(state) != 'dict':
            raise Rejected(f'it makes a log history of {_name(state)}')
        self._grow(node, [state])
        self._spend(*(state.parts if _kind(state) == 'tuple' else ()))

    def _spend(self, *copied: Any) -> None:
        """Count what a call copies, so that it is not copied again and again."""
        for part in copied:
            if isinstance(part, Node):
                is_bytes = part.kind == 'bytes'
                self._budget -= len(part.parts) if is_bytes else part.entries * _ENTRY
        if self._budget < 0:
            raise Rejected('it makes much more than it has bytes')

    def storage(self, _: None) -> None:
        """A storage of tensors: ('storage', type, key, device, number of elements)."""
        pid = self._stack.pop()
        parts = list(pid.parts) if _kind(pid) == 'tuple' else []
        if self.sizes is None and parts[5:] == [None]:
            parts.pop()
        if len(parts) != 5 or parts[0] != 'storage' or _kind(parts[1]) != 'name':
            raise Rejected('it asks for a storage in another way than torch.save')
        _, kind, key, location, count = parts
        if kind.parts not in STORAGES:
            raise Rejected(f'it asks for tensors of {kind.parts}')
        if not (isinstance(key, str) and isinstance(location, str) and _is_count(count)):
            raise Rejected('it asks for a storage in another way than torch.save')
        if not _LOCATION.fullmatch(location):
            raise Rejected(f'it asks for tensors on the device {shown(location)}')
        size = count * STORAGES[kind.parts]
        if self.sizes is not None and self.sizes.get(key) != size:
            there = self.sizes.get(key, 'none')
            raise Rejected(f'it asks for a storage of {shown(size)} bytes, and has {there} of them')
        found = self.storages.setdefault(key, (kind.parts, count))
        if found != (kind.parts, count):
            raise Rejected('it asks for one storage as two kinds')
        self._stack.append(Node('a storage', (key, count), raw=True))

    def tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *more: Any) -> Node:
        """A tensor: where it lies in a storage, whether it needs gradients, and no hooks."""
        numbers = size, stride
        if not (
            _kind(storage) == 'a storage'
            and _is_count(offset)
            and all(_kind(part) in ('tuple', 'torch.Size') for part in numbers)
            and all(_is_count(number) for part in numbers for number in part.parts)
            and len(size.parts) == len(stride.parts) <= 25
            and (not more or isinstance(more[0], bool))
            and all(_kind(hooks) == 'collections.OrderedDict' for hooks in more[1:])
            and not any(hooks.parts for hooks in more[1:])
            and len(more) in (0, 2)
        ):
            raise Rejected('it asks for a tensor in another way than torch.save')
        key, there = storage.parts
        count = math.prod(size.parts)
        last = offset + sum(
            (n - 1) * step for n, step in zip(size.parts, stride.parts, strict=True)
        )
        if count > there or (count and last >= there):
            shape = f'({", ".join(map(shown, size.parts))})'
            raise Rejected(f'it has a tensor of shape {shape} in a storage of {there:,} elements')
        self._used[key] = self._used.get(key, 0) + count
        if self._used[key] > MAX_SHARED * there:
            raise Rejected(f'it has the same {there:,} numbers in more than {MAX_SHARED} tensors')
        return Node('a tensor')

    def parameter(self, tensor: Any, needs_gradient: Any, hooks: Any) -> Node:
        """A tensor that is a parameter."""
        if _kind(tensor) != 'a tensor' or not isinstance(needs_gradient, bool) or hooks.parts:
            raise Rejected('it asks for a parameter in another way than torch.save')
        return Node('a tensor')

    def ordered_dict(self, *pairs: Any) -> Node:
        """An OrderedDict, in Python 2 of pairs."""
        node = Node('collections.OrderedDict', [])
        if len(pairs) > 1:
            raise Rejected('it asks for a dict of something else than pairs')
        pairs = pairs[0].parts if pairs else ()
        if any(_kind(pair) not in ('list', 'tuple') or len(pair.parts) != 2 for pair in pairs):
            raise Rejected('it asks for a dict of something else than pairs')
        items = [part for pair in pairs for part in pair.parts]
        self._require_keys(items[::2])
        self._grow(node, items)
        self._spend(node)
        node.parts.extend(items[::2])
        return node

    def counter(self, counts: Any) -> Node:
        """The milestones of a schedule."""
        if _kind(counts) != 'dict':
            raise Rejected(f'it counts {_name(counts)}')
        self._spend(counts)
        return Node('collections.Counter', list(counts.parts), counts.depth, counts.entries)

    def set(self, elements: Any) -> Node:
        """A set."""
        if _kind(elements) != 'list':
            raise Rejected(f'it makes a set of {_name(elements)}')
        self._require_keys(elements.parts)
        self._spend(elements)
        return Node('a set', depth=1, entries=elements.entries)

    def size(self, sizes: Any) -> Node:
        """A shape."""
        if _kind(sizes) != 'tuple' or not all(map(_is_count, sizes.parts)):
            raise Rejected(f'it has a shape of {_name(sizes)}')
        self._spend(sizes)
        return Node('torch.Size', sizes.parts, 1, sizes.entries)

    def device(self, *parts: Any) -> Node:
        """A device."""
        if not all(isinstance(part, int) or _LOCATION.fullmatch(str(part)) for part in parts):
            raise Rejected('it has a device of another name')
        return Node('torch.device')

    def complex(self, real: Any, imaginary: Any) -> Node:
        """A complex number."""
        if not (isinstance(real, float) and isinstance(imaginary, float)):
            raise Rejected(f'it has a complex number of {_name(real)} and {_name(imaginary)}')
        return Node('a complex number')

    def getattr(self, owner: Any, name: Any) -> str:
        """One of the statistics of mmengine's log history."""
        if _kind(owner) != 'name' or owner.parts != _HISTORY or name not in STATISTICS:
            raise Rejected(f'it asks for getattr({_name(owner)}, {_name(name)!r})')
        return name

    def nothing(self) -> Node:
        """The bytes of an empty array, and no others."""
        return Node('bytes', '')

    def encode(self, text: Any, encoding: Any) -> Node:
        """Bytes, which protocol 2 of pickle writes as text."""
        if not isinstance(text, str) or encoding != 'latin1':
            raise Rejected(f'it has bytes of {_name(text)} in {shown(encoding)}')
        node = Node('bytes', text)
        self._spend(node)
        return node


def _kind(value: Any) -> str | None:
    return value.kind if isinstance(value, Node) else None


def _name(value: Any) -> str:
    """Name what stands for something, for people."""
    if not isinstance(value, Node):
        return shown(value)
    return str(value.parts) if value.kind == 'name' else value.kind


def _bits(number: float) -> int:
    return number.bit_length() if isinstance(number, int) else 0


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 48


_DICTS = 'dict', 'collections.OrderedDict', 'collections.Counter'
_HISTORY = 'mmengine.logging.history_buffer.HistoryBuffer'
_CALLS: dict[str, Callable[..., Any]] = {
    '_codecs.encode': _Scan.encode,
    'builtins.bytes': _Scan.nothing,
    'builtins.complex': _Scan.complex,
    'builtins.getattr': _Scan.getattr,
    'builtins.set': _Scan.set,
    'collections.Counter': _Scan.counter,
    'collections.OrderedDict': _Scan.ordered_dict,
    'torch.Size': _Scan.size,
    'torch.device': _Scan.device,
    'torch._utils._rebuild_parameter': _Scan.parameter,
    'torch._utils._rebuild_tensor': _Scan.tensor,
    'torch._utils._rebuild_tensor_v2': _Scan.tensor,
}
_STEPS: dict[str, Callable[[_Scan, Any], None]] = {
    'PROTO': lambda scan, version: None,
    'NONE': _Scan.push,
    'NEWTRUE': lambda scan, _: scan.push(True),
    'NEWFALSE': lambda scan, _: scan.push(False),
    **dict.fromkeys(('BININT', 'BININT1', 'BININT2', 'LONG1', 'BINFLOAT'), _Scan.push),
    'BINUNICODE': _Scan.push,
    'SHORT_BINSTRING': _Scan.text,
    'GLOBAL': _Scan.name,
    **dict.fromkeys(('BINPUT', 'LONG_BINPUT'), _Scan.put),
    **dict.fromkeys(('BINGET', 'LONG_BINGET'), _Scan.get),
    'MARK': _Scan.mark,
    'EMPTY_TUPLE': lambda scan, _: scan.make_tuple([]),
    'EMPTY_LIST': lambda scan, _: scan.push(Node('list', [])),
    'EMPTY_DICT': lambda scan, _: scan.push(Node('dict', [])),
    'TUPLE1': lambda scan, _: scan.make_tuple(scan.pop(1)),
    'TUPLE2': lambda scan, _: scan.make_tuple(scan.pop(2)),
    'TUPLE3': lambda scan, _: scan.make_tuple(scan.pop(3)),
    'TUPLE': lambda scan, _: scan.make_tuple(scan.pop()),
    'APPEND': lambda scan, _: scan.append(scan.pop(1)),
    'APPENDS': lambda scan, _: scan.append(scan.pop()),
    'SETITEM': lambda scan, _: scan.set_items(scan.pop(2)),
    'SETITEMS': lambda scan, _: scan.set_items(scan.pop()),
    'REDUCE': _Scan.call,
    'NEWOBJ': _Scan.new,
    'BUILD': _Scan.build,
    'BINPERSID': _Scan.storage,
}
