"""YAML that is data, and nothing that a file names is called."""

from typing import IO, Any

import yaml
from mmengine.fileio import YamlHandler, register_handler
from yaml import MappingNode, SafeLoader

from .errors import UserValueError
from .text import shown

MAX_ENTRIES = 1_000_000  # of a file
MAX_MERGED = 100_000  # entries that come from other mappings
MAX_BITS = 256  # of a number


class _PlainYaml(SafeLoader):
    """YAML that is data: a tag names what is to be called with it."""

    merged = 0

    def flatten_mapping(self, node: MappingNode) -> None:
        """Put in what ``<<`` names, within bounds: each mapping may have all of the one before."""
        before = len(node.value)
        super().flatten_mapping(node)
        self.merged += len(node.value) - before
        if self.merged > MAX_MERGED:
            raise UserValueError(f'YAML that merges more than {MAX_MERGED:,} entries')


_PlainYaml.add_constructor(  # which mmengine writes
    'tag:yaml.org,2002:python/tuple',
    lambda loader, node: tuple(loader.construct_sequence(node, deep=True)),
)


@register_handler(['yaml', 'yml'])
class PlainYamlHandler(YamlHandler):
    """mmengine's reader of YAML, which runs nothing that a file names.

    mmengine's own takes ``!!python/object/apply:os.system [...]`` for a call.
    """

    def load_from_fileobj(self, file: IO, **kwargs: Any) -> Any:
        """Read data.

        Raises:
            ValueError: If it has tags, or much more entries than lines.
        """
        try:
            data = yaml.load(file, **{'Loader': _PlainYaml, **kwargs})
        except (UserValueError, UnicodeDecodeError, RecursionError, MemoryError):
            raise
        except Exception as error:  # dates and numbers raise what Python's own do
            raise UserValueError(f'no YAML of plain data: {shown(error, 300)}') from error
        if _count(data, {}) > MAX_ENTRIES:
            raise UserValueError(f'YAML of more than {MAX_ENTRIES:,} entries')
        return data


def _count(node: Any, done: dict[int, float]) -> float:
    """Number of entries below a node, those of what is shared counted where it is used."""
    if isinstance(node, int) and node.bit_length() > MAX_BITS:  # which Python does not write
        raise UserValueError(f'YAML with {shown([node])[1:-1]}')
    if not isinstance(node, (dict, list, tuple)):
        return 1
    if id(node) not in done:
        done[id(node)] = float('inf')  # what contains itself has no end
        children = node.values() if isinstance(node, dict) else node
        done[id(node)] = 1 + sum(_count(child, done) for child in children)
    return done[id(node)]
