"""Parameters and FLOPs of detectors and classifiers, on the meta device: nothing is computed."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.ops import DeformConv2dPack
from mmdet.models import SingleStageDetector
from mmengine.analysis import parameter_count
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..models.layers import Operator
from ..upstream import MODELS, SwinTransformer


def count_detector(model: dict, image_size: tuple[int, int]) -> dict[str, int]:
    """Count parameters and FLOPs of a detector.

    A FLOP is a multiply-add, as in mmengine's own analysis, which would have to run the model on
    real tensors, for minutes, and skips what it does not know. Convolutions and matrix products
    are counted, attention among them, and the samples of deformable convolutions. Norms,
    activations and the softmax are not, nor are RoI heads, whose work depends on the image, and
    the transformers of DINO and Mask2Former.

    Args:
        model (dict): Config of the detector.
        image_size (tuple[int, int]): (H, W) in pixels; padded as the model pads images.

    Returns:
        dict[str, int]: ``parameters``, ``backbone_parameters``, ``backbone_flops`` and ``flops``:
        those of backbone, neck, RPN or RetinaNet's head, and HTC's semantic head.
    """
    choose_countable(model.backbone)
    divisor = model.data_preprocessor.pad_size_divisor
    image_size = (-(-length // divisor) * divisor for length in image_size)
    with torch.device('meta'), torch.no_grad():
        detector = build_without_values(model, model.backbone)
        with flop_counter() as counter:
            maps = detector.backbone(torch.empty(1, 3, *image_size))
            backbone_flops = counter.get_total_flops()
            if detector.with_neck:
                maps = detector.neck(maps)
            for head in dense_heads(detector):
                head(maps)
    parameters = parameter_count(detector)
    return dict(
        parameters=parameters[''],
        backbone_parameters=parameters['backbone'],
        backbone_flops=backbone_flops // 2,  # PyTorch counts multiplications and additions
        flops=counter.get_total_flops() // 2,
    )


def dense_heads(detector: nn.Module) -> Iterator[nn.Module]:
    """The heads of a detector that run densely over its maps."""
    if getattr(detector, 'with_rpn', False):
        yield detector.rpn_head
        if getattr(detector.roi_head, 'with_semantic', False):
            yield detector.roi_head.semantic_head
    elif isinstance(detector, SingleStageDetector) and detector.with_bbox:
        yield detector.bbox_head


def count_classifier(model: dict, image_size: tuple[int, int] | None = None) -> dict[str, int]:
    """Count parameters and FLOPs of a classifier: backbone, average and one linear layer.

    FLOPs are those of :func:`count_detector`.

    Args:
        model (dict): Config of the classifier.
        image_size (tuple[int, int], optional): (H, W) in pixels. Defaults to what the position
            tables are built for.

    Returns:
        dict[str, int]: ``parameters``, ``table_parameters`` (the position tables among them) and
        ``flops``.
    """
    backbone, head = model.backbone, model.head
    choose_countable(backbone)
    image_size = image_size or backbone.input_size
    with torch.device('meta'), torch.no_grad(), flop_counter() as counter:
        backbone = build_without_values(backbone, backbone)
        fc = nn.Linear(head.in_channels, head.num_classes)
        fc(backbone(torch.empty(1, 3, *image_size))[-1].mean((2, 3)))
    parameters = parameter_count(nn.ModuleList((backbone, fc)))
    layers = [module for module in backbone.modules() if isinstance(module, Operator)]
    tables = [table for operator in layers for table in operator.position_tables]
    return dict(
        parameters=parameters[''],
        table_parameters=sum(table.numel() for table in tables),
        flops=counter.get_total_flops() // 2,
    )


def choose_countable(backbone: dict) -> None:
    """Have a backbone's config built of what :func:`flop_counter` can count, in place."""
    if backbone.get('dcn'):
        backbone.dcn.type = ShapeOnlyDCN
    if backbone.get('operator'):
        backbone.operator.pop('backend', None)  # that of 'auto' takes tensors without values


def operator_of(backbone: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The config of a backbone's operator, or None."""
    return backbone.get('operator', getattr(_class_of(backbone), 'default_operator', None))


def _class_of(backbone: Mapping[str, Any]) -> type | None:
    kind = backbone['type']
    return kind if isinstance(kind, type) else MODELS.get(kind)


def build_without_values(model: dict, backbone: dict) -> nn.Module:
    """Build a model on the meta device, in evaluation mode."""
    # mmdet's Swin reads its drop path rates out of a tensor.
    swin = issubclass(_class_of(backbone) or nn.Module, SwinTransformer)
    with torch.device('cpu' if swin else 'meta'):
        built = MODELS.build(model).to('meta')
    built.eval()
    return built


def flop_counter() -> FlopCounterMode:
    """PyTorch's counter, which knows our attention, too."""
    return FlopCounterMode(
        display=False,
        custom_mapping={
            torch.ops.lesa_mmdet.attend_chunked: attention_flops,
            torch.ops.lesa_mmdet.attend_shifted: neighborhood_flops,
            torch.ops.aten.grid_sampler_2d: sampling_flops,
        },
    )


def attention_flops(q: tuple, k: tuple, v: tuple, row: tuple, col: tuple, **_) -> int:
    """Two products: queries with keys, weights with values. Shapes as of ``attend``."""
    batch, heads, positions, key_dim = q
    return 2 * batch * heads * positions**2 * (key_dim + v[-1])


def neighborhood_flops(
    v: tuple, weights: tuple, mul: tuple | None, add: tuple | None, *_: Any, **__: Any
) -> int:
    """A product of value and weight for each neighbour, and one with its fixed weight."""
    return 2 * torch.Size(v).numel() * weights[2] * (1 if add is None else 2)


def sampling_flops(x: tuple, grid: tuple, *_, out_shape: tuple, **__) -> int:
    """Bilinear interpolation: four products a value."""
    return 2 * 4 * torch.Size(out_shape).numel()


class ShapeOnlyDCN(DeformConv2dPack):
    """Deformable convolution in PyTorch's own operators, for tensors without values.

    One sample for every position and entry of the kernel, then a convolution of the samples.
    """

    def forward(self, x: Tensor) -> Tensor:
        rows, cols = self.conv_offset(x).shape[-2:]
        height, width = self.kernel_size
        grid = x.new_empty(len(x), rows * height, cols * width, 2)
        samples = F.grid_sample(x, grid, align_corners=True)
        return F.conv2d(samples, self.weight, stride=self.kernel_size, groups=self.groups)
