"""What we take of mmdet, mmengine and mmcv: where their registries and our base classes live.

No other module imports these from mmdet or mmengine, so that another home of theirs is one edit.
``PRIVATE`` lists what we take that is not for others. The package imports this module first: if a
stack is missing, or would go round what we override, one sentence says so.
"""

import inspect
import pkgutil
import warnings
from functools import partial

from .attention.private import Private
from .utils.stacks import explain, refuse_both

try:
    refuse_both()
    import mmcv.ops  # noqa: F401
    import mmdet.datasets  # noqa: F401
    import mmengine  # noqa: F401
except ImportError as error:
    raise explain(error) from error

from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO as CocoApi
from mmdet.datasets.transforms import LoadAnnotations
from mmdet.engine.hooks import CheckInvalidLossHook
from mmdet.evaluation import CocoMetric
from mmdet.models.backbones.resnet import BasicBlock, Bottleneck, ResNet
from mmdet.models.backbones.swin import SwinTransformer, WindowMSA
from mmdet.models.roi_heads import CascadeRoIHead, HybridTaskCascadeRoIHead
from mmdet.registry import DATASETS, HOOKS, METRICS, MODELS
from mmengine.hooks import CheckpointHook, DistSamplerSeedHook, Hook
from mmengine.model import BaseModule, ModuleList
from mmengine.registry import MODELS as ROOT_MODELS
from pycocotools import coco

__all__ = [
    'DATASETS',
    'HOOKS',
    'METRICS',
    'MODELS',
    'BaseModule',
    'BasicBlock',
    'Bottleneck',
    'CheckInvalidLossHook',
    'CocoApi',
    'CascadeRoIHead',
    'CheckpointHook',
    'CocoDataset',
    'CocoMetric',
    'DistSamplerSeedHook',
    'Hook',
    'LoadAnnotations',
    'LoadImageFromFile',
    'HybridTaskCascadeRoIHead',
    'ModuleList',
    'ResNet',
    'SwinTransformer',
    'WindowMSA',
    'register_backbone',
]


_AT_ONCE = 'AttributeError when it is first used, before anything is trained or written'
# All of them but for those of attention/, which has its own table. Functions have their arguments.
PRIVATE = (
    Private(
        'multiprocessing.queues.Queue._on_queue_feeder_error(e, obj)',
        'engine.launch',
        'a training would wait for ever for a batch that a worker cannot hand on',
    ),
    Private(
        'mmengine.hooks.CheckpointHook._save_checkpoint_with_step(self, runner, step, meta)',
        'engine.hooks.atomic_checkpoint',
        'outdated checkpoints would stay',
    ),
    Private(
        'mmengine.hooks.CheckpointHook._save_best_checkpoint(self, runner, metrics)',
        'engine.hooks.atomic_checkpoint',
        'outdated best checkpoints would stay',
    ),
    Private(
        'mmengine.infer.BaseInferencer._init_model(self, cfg, weights, device)',
        'apis.predictors',
        'the model would be built again, with random weights',
    ),
    Private(
        'mmdet.models.roi_heads.HybridTaskCascadeRoIHead._mask_forward'
        '(self, stage, x, rois, semantic_feat, training)',
        'models.roi_heads',
        "masks would be the last stage's alone",
    ),
    Private(
        'torch.nn.Module._load_from_state_dict(self, state_dict, prefix, local_metadata, strict, '
        'missing_keys, unexpected_keys, error_msgs)',
        'checkpoints.adapt models.classifiers',
        "the authors' checkpoints would not be renamed",
    ),
    Private('mmengine.runner.CheckpointLoader._schemes', 'checkpoints.schemes', _AT_ONCE),
    Private('mmengine.runner.checkpoint._get_mmengine_home()', 'checkpoints.schemes', _AT_ONCE),
    Private(
        'mmengine.runner.checkpoint._process_mmcls_checkpoint(checkpoint)',
        'checkpoints.schemes',
        _AT_ONCE,
    ),
    Private('mmengine.runner.Runner._resume', 'engine.hooks.fit_checkpoint', _AT_ONCE),
    Private(
        'mmengine.runner.Runner._load_from',
        'engine.hooks.fit_checkpoint engine.hooks.atomic_checkpoint',
        _AT_ONCE,
    ),
    Private('mmengine.runner.Runner._has_loaded', 'engine.hooks.fit_checkpoint', _AT_ONCE),
    Private('mmengine.runner.Runner._train_loop', 'engine.hooks.fit_checkpoint', _AT_ONCE),
    Private('mmengine.runner.Runner._train_dataloader', 'engine.hooks.epoch_seed', _AT_ONCE),
    Private('mmengine.runner.Runner._val_loop', 'engine.hooks.fit_checkpoint', _AT_ONCE),
    Private('mmengine.runner.Runner._test_loop', 'engine.hooks.fit_checkpoint', _AT_ONCE),
    Private('mmpretrain.apis.model.get_model._dataset_meta', 'apis.load', _AT_ONCE),
    *(
        # In tools/train.py and tools/test.py; mmpretrain's have the same.
        Private(
            f'mmdet.tools.{name}',
            'engine.launch',
            'ImportError before anything is trained or tested',
        )
        for name in ('main', 'parse_args')
    ),
    *(
        Private(f'torch.nn.Module._{name}', 'models.layers.norm', _AT_ONCE)
        for name in ('forward_pre_hooks', 'forward_hooks', 'backward_pre_hooks', 'backward_hooks')
    ),
    *(
        Private(f'torch.nn.modules.module._global_{name}', 'models.layers.norm', _AT_ONCE)
        for name in ('forward_pre_hooks', 'forward_hooks', 'backward_pre_hooks', 'backward_hooks')
    ),
    Private(
        'torch.nn.modules.batchnorm._BatchNorm',
        'models.layers.context models.layers.recompute',
        'ImportError when the package is imported',
    ),
    Private('torch.nn.modules.dropout._DropoutNd', 'models.layers.recompute', _AT_ONCE),
    Private(
        'torch._C._autograd._top_saved_tensors_default_hooks',
        'models.layers.recompute',
        'a warning; a training keeps what it could compute again: more memory, the same results',
    ),
    Private(
        'torch._C._autograd._saved_tensors_hooks_is_enabled', 'models.layers.recompute', _AT_ONCE
    ),
    Private(
        'pycocotools.coco.open',
        'upstream',
        "a warning: annotations are read in the locale's encoding",
    ),
)


def check_private(table: tuple[Private, ...] = PRIVATE) -> None:
    """Refuse a version of another package that would go round what we override, without a word.

    Raises:
        ImportError: If a method that we override is gone or takes other arguments.
    """
    for private in table:
        name, _, arguments = private.name.partition('(')
        if not arguments or private.without == _AT_ONCE:
            continue
        try:
            found = ', '.join(inspect.signature(pkgutil.resolve_name(name)).parameters)
        except AttributeError:
            found = None
        if found != arguments.rstrip(')'):
            raise ImportError(
                f'{name} of the installed {name.partition(".")[0]} is not what lesa_mmdet knows '
                f'({"it is gone" if found is None else f"it takes {found}"}): '
                f'{private.without}; install one of the versions in requirements/'
            )


def open_utf8() -> None:
    """Let pycocotools read annotations as the UTF-8 that they are, for mmdet's metrics, too."""
    coco.open = partial(open, encoding='utf-8')
    if 'open' not in coco.COCO.__init__.__code__.co_names:
        warnings.warn(
            'the installed pycocotools does not open annotations as lesa_mmdet knows: they are '
            "read in the locale's encoding, unless PYTHONUTF8=1 is set",
            stacklevel=2,
        )


check_private()
open_utf8()


def register_backbone(backbone: type) -> type:
    """Register a backbone in mmdet, and in mmengine's root, where mmpretrain finds it, too."""
    for registry in (MODELS, ROOT_MODELS):
        registry.register_module(module=backbone)
    return backbone
