"""RoI heads of cascades that compute what the mmdet 2.11 of the paper computed.

mmdet 3's own differ from it where masks are initialized (both) and predicted (HTC).
"""

import torch.nn.functional as F
from torch import Tensor

from ..upstream import MODELS, CascadeRoIHead, HybridTaskCascadeRoIHead, ModuleList


class _InitializedMaskHeads:
    """Mask heads whose weights are initialized.

    mmdet 3 keeps them in a list of torch's, which hides their ``init_weights`` from mmengine.
    """

    def init_mask_head(self, mask_roi_extractor: dict, mask_head: dict) -> None:
        """Build the mask heads, one for each stage, and their RoI extractors."""
        super().init_mask_head(mask_roi_extractor, mask_head)
        self.mask_head = ModuleList(self.mask_head)


@MODELS.register_module()
class LESA_CascadeRoIHead(_InitializedMaskHeads, CascadeRoIHead):
    """mmdet's ``CascadeRoIHead``, whose mask heads start as those of Mask R-CNN do.

    That is from He et al.'s distribution: a standard deviation of 0.044 instead of 0.018 for the
    deconvolution, of 0.158 instead of 0.036 for the logits (256 channels, 80 classes).
    """


@MODELS.register_module()
class LESA_HTCRoIHead(_InitializedMaskHeads, HybridTaskCascadeRoIHead):
    """mmdet's ``HybridTaskCascadeRoIHead`` with the mask branch of the HTC paper.

    A predicted mask is the mean over all stages (arXiv 1901.07518, section 3.2); mmdet 3.x takes
    the last stage's alone (open-mmlab/mmdetection issue 10210). Mask heads are initialized as in
    :class:`LESA_CascadeRoIHead`.
    """

    def _mask_forward(
        self,
        stage: int,
        x: tuple[Tensor, ...],
        rois: Tensor,
        semantic_feat: Tensor | None = None,
        training: bool = True,
    ) -> dict:
        """Mask logits of a stage in training, in testing a list of those of all stages."""
        if training:
            return super()._mask_forward(stage, x, rois, semantic_feat)
        extract = self.mask_roi_extractor[stage]
        features = extract(x[: extract.num_inputs], rois)
        if self.with_semantic and 'mask' in self.semantic_fusion:
            semantic = self.semantic_roi_extractor([semantic_feat], rois)
            features = features + F.adaptive_avg_pool2d(semantic, features.shape[-2:])
        logits, flow = [], None
        for head in self.mask_head:
            of_stage, of_features = head(features, flow)
            logits.append(of_stage)
            flow = of_features if self.mask_info_flow else None
        return dict(mask_preds=logits)
