"""That a stack is installed. The package imports it first, so that its lack is one sentence."""

try:
    import mmcv.ops  # noqa: F401
    import mmdet  # noqa: F401
    import mmengine  # noqa: F401
except ModuleNotFoundError as error:
    if error.name.partition('.')[0] not in ('mmcv', 'mmdet', 'mmengine'):
        raise
    raise ModuleNotFoundError(
        f'lesa_mmdet needs mmcv with its operators, mmengine and mmdet ({error}): in its checkout, '
        "python tools/build_mmcv.py -r requirements/openmmlab.txt installs OpenMMLab's (Python "
        "3.10 to 3.12), and -r requirements/onedl.txt OneDL's (Python 3.10 to 3.13)",
        name=error.name,
    ) from error
