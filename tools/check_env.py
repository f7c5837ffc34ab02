"""Check that this Python can run the project: what an existing environment has to bring."""

import sys
from importlib import import_module

NEEDED = {
    'torch': 'pip install torch',
    'mmcv.ops': 'mmcv with its operators (formerly mmcv-full): tools/build_mmcv.sh PYTHON 2.1.0',
    'mmdet': 'pip install mmdet==3.3.0',
    'cv2': 'pip install opencv-python-headless',
    'einops': 'pip install einops',
    'onnx': 'pip install onnx',
    'onnxscript': 'pip install onnxscript',
    'pycocotools': 'pip install pycocotools',
    'hypothesis': 'pip install hypothesis',
    'pytest': 'pip install pytest',
    'ruff': 'pip install ruff',
    'lesa_mmdet': 'pip install --no-build-isolation --no-deps -e .',
}


def main() -> None:
    missing = []
    for module, remedy in NEEDED.items():
        try:
            import_module(module)
        except Exception as error:
            missing.append(f'  {module}: {error} -> {remedy}')
    if missing:
        sys.exit('\n'.join([f'{sys.executable} lacks:', *missing]))
    print(f'{sys.executable} has all that is needed')


if __name__ == '__main__':
    main()
