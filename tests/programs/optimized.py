"""What tools and hooks say without asserts and docstrings: ``python -OO optimized.py``."""

import contextlib
import io
import json
import runpy
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

import lesa_mmdet
from lesa_mmdet.utils.errors import UserError


def help_of(tool: Path) -> None:
    """Run a tool as far as it goes with ``--help``."""
    sys.argv = [str(tool), '--help']
    sys.path.insert(0, str(tool.parent))
    try:
        with contextlib.redirect_stdout(io.StringIO()) as said:
            runpy.run_path(str(tool), run_name='__main__')
    except SystemExit as exit:
        print('HELP', tool.name, exit.code, 'usage: ' in said.getvalue())


def refusal(function, *args, **kwargs) -> None:
    """Print what is refused."""
    try:
        function(*args, **kwargs)
    except UserError as error:
        print('REFUSED', error)


def data_set_with_an_id_twice() -> None:
    one = dict(id=1, image_id=1, category_id=1, bbox=[1, 1, 9, 9], area=81, iscrowd=0)
    content = dict(
        images=[dict(id=1, file_name='a.jpg', height=32, width=32)],
        categories=[dict(id=1, name='one')],
        annotations=[one, dict(one, bbox=[9, 9, 9, 9])],
    )
    with tempfile.NamedTemporaryFile('w', suffix='.json', encoding='utf-8') as file:
        json.dump(content, file)
        file.flush()
        lesa_mmdet.CheckedCocoDataset(
            ann_file=file.name, metainfo=dict(classes=('one',)), pipeline=[]
        )


class Head(nn.Module):
    num_classes = 80


def main() -> None:
    for tool in sorted([*Path('tools').rglob('*.py'), *Path('benchmarks').glob('*.py')]):
        if "__name__ == '__main__'" in tool.read_text(encoding='utf-8'):
            help_of(tool)
    data = SimpleNamespace(dataset=SimpleNamespace(metainfo=dict(classes=('a', 'b'))))
    model = nn.ModuleDict(dict(bbox_head=Head()))
    runner = SimpleNamespace(iter=0, model=model, train_dataloader=data, val_dataloader=data)
    hook = lesa_mmdet.ClassNumbersHook()
    refusal(hook.before_train_epoch, runner)
    refusal(hook.before_val_epoch, runner)
    loss = dict(loss=torch.tensor(float('nan')))
    refusal(lesa_mmdet.FiniteLossHook().after_train_iter, runner, 0, outputs=loss)
    refusal(data_set_with_an_id_twice)
    print('DEBUG', __debug__)


if __name__ == '__main__':
    main()
