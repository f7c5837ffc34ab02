# What every config of this package adds to mmdet's runtime: default_hooks = _base_.lesa_hooks
custom_imports = dict(imports=['lesa_mmdet'])

lesa_hooks = dict(
    # Resumed runs draw the random numbers of uninterrupted ones.
    sampler_seed=dict(type='EpochSeedHook'),
    # Mistakes that would show in the results alone, or not at all.
    num_classes=dict(type='NumClassCheckHook'),
    finite_loss=dict(type='FiniteLossHook'),
    # All processes evaluate the statistics of batch norm that the checkpoint has, where it is
    # trained (with norm_eval they are constants).
    sync_buffers=dict(type='SyncBuffersHook'),
)
