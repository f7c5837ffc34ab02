# For the place of Resize: one number for both sides, half of the time drawn from 512 to 1024, half
# of the time from 1024 to 2048 (paper, section 4.2).
multi_scale = dict(
    type='RandomChoice',
    transforms=[
        [dict(type='RandomResize', scale=(1024, 1024), ratio_range=ratios, keep_ratio=False)]
        for ratios in ((0.5, 1.0), (1.0, 2.0))
    ],
)
