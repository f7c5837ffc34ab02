"""Models with what their predictions mean: drawn, and as results."""

from collections.abc import Sequence

import numpy as np
from mmdet.apis import DetInferencer
from mmdet.models import BaseDetector
from mmdet.visualization import DetLocalVisualizer
from mmengine.structures import BaseDataElement
from torch import nn

from ..upstream import CocoDataset

TOP = 5  # classes of an image that a classifier reports
# COCO numbers its 80 classes from 1 to 90.
COCO_IDS = sorted(set(range(1, 91)) - {12, 26, 29, 30, 45, 66, 68, 69, 71, 83})


class Predictor:
    """A model with what its predictions mean. One subclass a kind of model."""

    @staticmethod
    def of(model: nn.Module) -> 'Predictor':
        """The predictor for a detector or classifier of ``load_model``."""
        return (Detections if isinstance(model, BaseDetector) else Classes)(model)

    def predict(self, images: Sequence[np.ndarray]) -> list[BaseDataElement]:
        """Run the model on images (H, W, 3), RGB."""
        raise NotImplementedError

    def draw(self, image: np.ndarray, sample: BaseDataElement, score_thr: float) -> np.ndarray:
        """Draw predictions into an image (H, W, 3), RGB."""
        raise NotImplementedError

    def describe(self, sample: BaseDataElement) -> list[dict]:
        """Results in COCO's format, without ``image_id``."""
        raise NotImplementedError

    def categories(self) -> list[dict]:
        """Ids and names of the categories of the results."""
        raise NotImplementedError


class Detections(Predictor):
    """What a detector finds, on mmdet's inferencer."""

    def __init__(self, model: nn.Module) -> None:
        self._inferencer = _LoadedInferencer(model)
        self._visualizer = DetLocalVisualizer(alpha=0.4)
        self._visualizer.dataset_meta = model.dataset_meta
        self._names = tuple(model.dataset_meta['classes'])
        is_coco = self._names == CocoDataset.METAINFO['classes']
        self._ids = COCO_IDS if is_coco else range(1, len(self._names) + 1)

    def predict(self, images: Sequence[np.ndarray]) -> list[BaseDataElement]:
        bgr = [image[..., ::-1] for image in images]
        ((_, batch),) = self._inferencer.preprocess(bgr, batch_size=len(bgr))
        return self._inferencer.forward(batch)

    def draw(self, image: np.ndarray, sample: BaseDataElement, score_thr: float) -> np.ndarray:
        self._visualizer.add_datasample('', image, sample, draw_gt=False, pred_score_thr=score_thr)
        return self._visualizer.get_image()

    def describe(self, sample: BaseDataElement) -> list[dict]:
        found = self._inferencer.pred2dict(sample.cpu())
        results = []
        for index, (label, score) in enumerate(zip(found['labels'], found['scores'], strict=True)):
            left, top, right, bottom = found['bboxes'][index]
            result = dict(
                category_id=self._ids[label],
                bbox=[left, top, right - left, bottom - top],
                score=score,
            )
            if 'masks' in found:
                result['segmentation'] = found['masks'][index]
            results.append(result)
        return results

    def categories(self) -> list[dict]:
        return [dict(id=id, name=name) for id, name in zip(self._ids, self._names, strict=True)]


class _LoadedInferencer(DetInferencer):
    """mmdet's inferencer around a model that is loaded already."""

    def __init__(self, model: nn.Module) -> None:
        self._loaded = model
        super().__init__(model.cfg, device='cpu', show_progress=False)

    def _init_model(self, *_) -> nn.Module:
        return self._loaded


class Classes(Predictor):
    """What a classifier says, on mmpretrain's inferencer. Its category ids count from 0."""

    def __init__(self, model: nn.Module) -> None:
        from mmpretrain import ImageClassificationInferencer
        from mmpretrain.visualization import UniversalVisualizer

        self._inferencer = ImageClassificationInferencer(model)
        self._visualizer = UniversalVisualizer()
        self._num_classes = model.head.num_classes

    def predict(self, images: Sequence[np.ndarray]) -> list[BaseDataElement]:
        bgr = [image[..., ::-1] for image in images]
        (batch,) = self._inferencer.preprocess(bgr, batch_size=len(bgr))
        return self._inferencer.forward(batch)

    def draw(self, image: np.ndarray, sample: BaseDataElement, score_thr: float) -> np.ndarray:
        self._visualizer.visualize_cls(
            image, sample.cpu(), classes=self._inferencer.classes, draw_gt=False
        )
        return self._visualizer.get_image()

    def describe(self, sample: BaseDataElement) -> list[dict]:
        scores, labels = sample.pred_score.topk(min(TOP, self._num_classes))
        return [
            dict(category_id=label, score=score)
            for label, score in zip(labels.tolist(), scores.tolist(), strict=True)
        ]

    def categories(self) -> list[dict]:
        names = self._inferencer.classes or map(str, range(self._num_classes))
        return [dict(id=id, name=name) for id, name in enumerate(names)]
