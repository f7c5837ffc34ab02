"""What may be changed in a config."""

import ast
from pathlib import Path

import mmdet
import mmengine
import pytest
from mmengine.config import Config

from lesa_mmdet.utils.configs import change_config, read_config
from lesa_mmdet.utils.errors import UserValueError

from helpers.paths import DEMO


def find_keys():
    """The names that mmengine's runners and mmdet's tools read of a config by ``cfg.get``."""
    runners = Path(mmengine.__file__).parent / 'runner'
    files = [runners / 'runner.py', runners / '_flexible_runner.py']
    files += (Path(mmdet.__file__).parent / '.mim' / 'tools').glob('t*.py')
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
            of = getattr(node, 'func', None)
            if not isinstance(of, ast.Attribute) or of.attr != 'get' or not node.args:
                continue
            owner = of.value.attr if isinstance(of.value, ast.Attribute) else of.value
            if getattr(owner, 'id', owner) == 'cfg' and isinstance(node.args[0], ast.Constant):
                yield node.args[0].value


KEYS = sorted(set(find_keys()))


def test_keys_are_found():
    assert {'compile', 'efficient_conv_bn_eval', 'strategy', 'sync_bn', 'work_dir'} <= set(KEYS)


@pytest.mark.parametrize('key', KEYS)
def test_whatever_mmengine_reads_may_be_set(key):
    cfg = Config.fromfile(DEMO)
    for value in (None, 1):
        change_config(cfg, {key: value})
        assert cfg[key] == value


def test_what_nobody_reads_is_refused():
    for options in ({'compiles': True}, {'strateg.type': 'a'}, {'data_root': 'a'}):
        with pytest.raises(UserValueError):
            change_config(Config.fromfile(DEMO), options)


def test_a_detector_that_needs_mmpretrain_is_not_called_a_classifier(tmp_path, monkeypatch):
    monkeypatch.setattr('lesa_mmdet.utils.configs.find_spec', lambda _: None)
    path = tmp_path / 'convnext.py'
    path.write_text(
        "custom_imports = dict(imports=['mmpretrain_.models'])\nmodel = dict()\n", encoding='utf-8'
    )
    with pytest.raises(
        UserValueError, match='it needs mmpretrain, which is not installed'
    ) as error:
        read_config(str(path))
    assert 'classif' not in str(error.value)
