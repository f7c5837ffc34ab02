"""Image classifiers: mmpretrain's, on the backbones of this package. The only module that needs it.

Configs name it after the package:
``custom_imports=dict(imports=['lesa_mmdet', 'lesa_mmdet.models.classifiers'])``.
"""

from ..utils.configs import INSTALL_MMPRETRAIN

try:
    from mmpretrain.models import ImageClassifier
    from mmpretrain.registry import MODELS
except ModuleNotFoundError as error:
    if error.name != 'mmpretrain':
        raise
    raise ImportError(
        f'image classification needs mmpretrain, which is not installed: {INSTALL_MMPRETRAIN}'
    ) from error

from ..checkpoints import adapt_classifier


@MODELS.register_module()
class LESA_ImageClassifier(ImageClassifier):
    """mmpretrain's ``ImageClassifier``, which takes the authors' checkpoints unconverted.

    Those of torchvision's ResNets, too: their layer ``fc`` becomes the head's.
    """

    def adapt_checkpoint(self, state_dict: dict) -> None:
        """Rename the authors' or torchvision's keys, in place, for code that compares keys."""
        adapt_classifier(state_dict, '')

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        adapt_classifier(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
