"""Where a position looks: its local field, its weights and its omega."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmdet.utils import get_test_pipeline_cfg
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from ..models.layers import Operator, Probe
from ..utils.errors import UserValueError
from .operators import get_operator, operators


@dataclass(frozen=True)
class View:
    """How a model sees an image: resized, cropped around the centre, padded right and below.

    All pairs are (x, y), all arrays of points (..., 2) in that order. A pixel reaches from its
    index to the next, so that its centre lies at one half.

    Attributes:
        image_size (np.ndarray): Pixels of the image.
        scale (np.ndarray): Pixels of the model's input for one of the image.
        offset (np.ndarray): Pixels of the resized image that are cropped left and above.
        seen_size (np.ndarray): Pixels of the input that show the image.
        input_size (np.ndarray): Pixels of the input, padding included.
    """

    image_size: np.ndarray
    scale: np.ndarray
    offset: np.ndarray
    seen_size: np.ndarray
    input_size: np.ndarray

    @classmethod
    def from_metainfo(cls, metainfo: Mapping, input_shape: Sequence[int]) -> 'View':
        """Derive the view from what a test pipeline notes, and the (H, W) of the input."""
        image_size, seen_size, input_size = (
            np.array(shape[1::-1])
            for shape in (metainfo['ori_shape'], metainfo['img_shape'], input_shape)
        )
        scale = np.array(metainfo.get('scale_factor', (1, 1)))
        cropped = np.maximum(np.rint(image_size * scale) - seen_size, 0)
        # np.rint rounds halves to even, as mmcv's CenterCrop does.
        return cls(image_size, scale, np.rint(cropped / 2), seen_size, input_size)

    def position_of(self, point: Sequence[int], map_shape: Sequence[int]) -> tuple[int, int]:
        """Row and column of the position of a map (H, W) that a pixel (x, y) of the image falls on.

        Raises:
            ValueError: If there is no such pixel, or it is cropped away.
        """
        width, height = self.image_size
        if not (0 <= point[0] < width and 0 <= point[1] < height):
            raise UserValueError(
                f'point {tuple(point)} is outside the image, which is {width} pixels wide and '
                f'{height} high: x runs from 0 to {width - 1}, y from 0 to {height - 1}'
            )
        position = (np.array(point) + 0.5) * self.scale - self.offset
        if (position < 0).any() or (position >= self.seen_size).any():
            first = np.ceil(self.offset / self.scale - 0.5).astype(int)
            last = np.ceil((self.offset + self.seen_size) / self.scale - 0.5).astype(int) - 1
            raise UserValueError(
                f'point {tuple(point)} is cropped away by the test pipeline, which keeps x from '
                f'{first[0]} to {last[0]} and y from {first[1]} to {last[1]}'
            )
        col, row = (position // self._stride(map_shape)).astype(int)
        return int(row), int(col)

    def to_image(self, positions: np.ndarray, map_shape: Sequence[int]) -> np.ndarray:
        """Points (..., 2) on a map (H, W), where positions are what pixels are in the image."""
        return (positions * self._stride(map_shape) + self.offset) / self.scale

    def _stride(self, map_shape: Sequence[int]) -> int:
        """Stride of a map: those of a ResNet are powers of two, and keep what is left over."""
        size = np.array(map_shape[1::-1])
        return next(2**k for k in count() if (-(-self.input_size // 2**k) <= size).all())


@dataclass(frozen=True)
class PositionMaps:
    """What the output of an operator or convolution at one position is made of.

    Attributes:
        position (tuple[int, int]): Row and column of the position.
        shape (tuple[int, int]): (H, W) of the map.
        weights (np.ndarray, optional): What the position weighs those of its map with, (heads, H,
            W): softmax weights of the context, or of ELSA's neighbours; of a convolution None.
        fixed (np.ndarray, optional): What ELSA adds to them at all positions alike, (heads, H, W):
            magnitude, averaged over the channels of a head; else None.
        field (np.ndarray, optional): Points (n, 2), (x, y) on the map, around which the operator's
            convolution samples; without one None.
        omega (np.ndarray, optional): Mean (H, W) over the channels of the context's weight;
            without dynamic fusion None.
    """

    position: tuple[int, int]
    shape: tuple[int, int]
    weights: np.ndarray | None = None
    fixed: np.ndarray | None = None
    field: np.ndarray | None = None
    omega: np.ndarray | None = None


def look(
    model: nn.Module,
    image: str | Path,
    point: Sequence[int],
    layers: Sequence[str] | None = None,
) -> tuple[View, dict[str, PositionMaps]]:
    """Run a model's backbone on an image and look at what operators do at one pixel of it.

    Args:
        model (nn.Module): Model of :func:`lesa_mmdet.apis.load.load_model`.
        image (str | Path): Image file.
        point (Sequence[int]): Pixel (x, y) of the image.
        layers (Sequence[str], optional): Names of operators. Defaults to the last of those with
            the finest map.

    Returns:
        tuple[View, dict[str, PositionMaps]]: How the model sees the image, and the maps by layer.

    Raises:
        ValueError: If the model does not see the point, or has no such layer or no operator.
    """
    watched = {name: get_operator(model, name) for name in layers or operators(model)}
    recording = Recording(model, image, watched)
    layers = layers or [recording.finest()]
    return recording.view, {name: recording.at(point, name) for name in layers}


class Recording:
    """What layers computed in one image, kept so that any of its points can be looked at.

    The model runs once, when the recording is made. A point then costs one row of the similarity
    matrix of a layer.

    Args:
        model (nn.Module): Model of :func:`lesa_mmdet.apis.load.load_model`.
        image (str | Path | np.ndarray): Image file, or its pixels (H, W, 3), RGB.
        layers (Mapping[str, nn.Module]): Operators or convolutions of the backbone by name.
        predict (bool): Run the whole model, not the backbone alone.

    Attributes:
        view (View): How the model sees the image.
        prediction (BaseDataElement, optional): What the model predicts, if it was asked to.
    """

    @torch.no_grad()
    def __init__(
        self,
        model: nn.Module,
        image: str | Path | np.ndarray,
        layers: Mapping[str, nn.Module],
        predict: bool = False,
    ) -> None:
        self.view, data = _preprocess(model, image)
        self.prediction = None
        self._layers = dict(layers)
        self._looks: dict[str, Callable | None] = {}
        with _record(self._layers) as self._records:
            if predict:
                self.prediction = model(**data, mode='predict')[0]
            else:
                model.backbone(data['inputs'])

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it holds, on whatever device, with what points looked at so far."""
        return sum(tensor.nbytes for tensor in _tensors((self._records, self._looks)))

    def finest(self) -> str:
        """Name of the last layer among those with the finest map."""
        widths = {name: record['input'].shape[-1] for name, record in self._records.items()}
        return [name for name in widths if widths[name] == max(widths.values())][-1]

    @torch.no_grad()
    def at(self, point: Sequence[int], layer: str) -> PositionMaps:
        """What the output of a layer at a pixel (x, y) of the image is made of.

        Raises:
            ValueError: If the model does not see the point.
            KeyError: If the layer was not recorded.
        """
        module, record = self._layers[layer], self._records[layer]
        x = record['input']
        shape = tuple(x.shape[-2:])
        row, col = self.view.position_of(point, shape)
        maps = dict(position=(row, col), shape=shape)
        if layer not in self._looks:
            self._looks[layer] = module.look(x) if isinstance(module, Operator) else None
        look_from = self._looks[layer]
        if look_from is not None:
            attended = look_from(row, col)._asdict()
            maps |= {name: y.cpu().numpy() for name, y in attended.items() if y is not None}
        conv = _local_conv(module)
        if conv is not None:
            # A strided convolution has an output at every other position only.
            row, col = (index // step for index, step in zip((row, col), conv.stride, strict=True))
            offsets = record['offsets'][0, :, row, col] if 'offsets' in record else None
            centre = (row * conv.stride[0], col * conv.stride[1])
            maps['field'] = local_field(conv, centre, offsets)
        if 'omega' in record:
            maps['omega'] = record['omega'][0].mean(0).cpu().numpy()
        return PositionMaps(**maps)


def _tensors(tree: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples, dicts and partial calls."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, partial):
        yield from _tensors(tree.args)
    elif isinstance(tree, (tuple, list, dict)):
        for branch in tree.values() if isinstance(tree, dict) else tree:
            yield from _tensors(branch)


def see(model: nn.Module, image: str | Path) -> tuple[View, Tensor]:
    """What the test pipeline of a model makes of an image: the view, and the input (1, 3, H, W)."""
    view, data = _preprocess(model, image)
    return view, data['inputs']


def _preprocess(model: nn.Module, image: str | Path | np.ndarray) -> tuple[View, dict]:
    """How a model sees an image, and what its ``forward`` takes."""
    steps = get_test_pipeline_cfg(model.cfg)
    if isinstance(image, np.ndarray):  # as mmdet's inference_detector does
        steps = [{**steps[0], 'type': 'mmdet.LoadImageFromNDArray'}, *steps[1:]]
        source = dict(img=mmcv.rgb2bgr(image))
    else:
        source = dict(img_path=str(image))
    with DefaultScope.overwrite_default_scope(model.cfg.get('default_scope', 'mmdet')):
        pipeline = Compose(steps)
    sample = pipeline(dict(**source, img_id=0))
    data = model.data_preprocessor(pseudo_collate([sample]))
    metainfo = sample['data_samples'].metainfo
    return View.from_metainfo(metainfo, data['inputs'].shape[-2:]), data


@contextmanager
def _record(watched: Mapping[str, nn.Module]) -> Iterator[dict[str, dict[str, Tensor]]]:
    """Keep what the maps are made from, while the layers compute."""
    records = {name: {} for name in watched}
    handles = []

    def keep(record: dict[str, Tensor], key: str, probe: Probe) -> None:
        def hook(part: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            record[key] = probe.read(inputs, output)

        handles.append(probe.part.register_forward_hook(hook))

    for name, layer in watched.items():
        keep(records[name], 'input', Probe(layer, lambda inputs, output: inputs[0]))
        if isinstance(layer, Operator) and layer.omega is not None:
            keep(records[name], 'omega', layer.omega)
        offsets = getattr(_local_conv(layer), 'conv_offset', None)  # of mmcv's deformable ones
        if offsets is not None:
            keep(records[name], 'offsets', Probe(offsets, lambda inputs, output: output))
    try:
        yield records
    finally:
        for handle in handles:
            handle.remove()


def _local_conv(layer: nn.Module) -> nn.Module | None:
    """The convolution that samples a position's surroundings: an operator's, or the layer."""
    return layer.local_conv if isinstance(layer, Operator) else layer


def local_field(
    conv: nn.Module, position: tuple[int, int], offsets: Tensor | None = None
) -> np.ndarray:
    """Points around which a convolution samples its input for one output.

    Args:
        conv (nn.Module): The convolution, plain or deformable.
        position (tuple[int, int]): Row and column of the middle one.
        offsets (Tensor, optional): What ``conv_offset`` of a deformable convolution gives there;
            of DCNv2, the masks follow and are left alone.

    Returns:
        np.ndarray: Points (n, 2) as (x, y); a position reaches from its index to the next. n is the
        number of taps, times the groups of offsets.
    """
    taps = [
        (np.arange(size) - size // 2) * step
        for size, step in zip(conv.kernel_size, conv.dilation, strict=True)
    ]
    taps = np.stack(np.meshgrid(*taps, indexing='ij'), axis=-1).reshape(1, -1, 2)  # (row, column)
    positions = np.array(position) + 0.5 + taps
    if offsets is not None:
        groups = conv.deform_groups
        offsets = offsets[: groups * taps.size].reshape(groups, -1, 2).cpu().numpy()
        positions = positions + offsets
    return positions.reshape(-1, 2)[:, ::-1]
