import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
VERSION = {}
exec((ROOT / 'lesa_mmdet' / 'version.py').read_text(encoding='utf-8'), VERSION)


class BuildWithConfigs(build_py):
    """Puts the configs where OpenMMLab's packages have theirs: ``.mim`` inside the package."""

    def run(self):
        super().run()
        if self.editable_mode:
            return  # a checkout has them beside the package
        target = Path(self.build_lib) / 'lesa_mmdet' / '.mim'
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(ROOT / 'configs', target / 'configs')
        shutil.copy(ROOT / 'model-index.yml', target)


setup(
    name='lesa_mmdet',
    version=VERSION['__version__'],
    description='Locally Enhanced Self-Attention (LESA) backbones for mmdetection',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    keywords=['object detection', 'instance segmentation', 'self-attention', 'mmdetection'],
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'Programming Language :: Python :: 3',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
    packages=find_packages(include=['lesa_mmdet', 'lesa_mmdet.*']),
    package_data={'lesa_mmdet.visualization': ['web/*']},
    cmdclass={'build_py': BuildWithConfigs},
    python_requires='>=3.10',
    # mmcv, mmengine and mmdet come with one of two extras: OpenMMLab's and OneDL's packages bring
    # modules of the same names. mmcv's operators come from mmcv_torchvision, or a compiled mmcv.
    # Before 2.6 torch.load is not safe, even with weights_only; the tests run on 2.13 and 2.14.
    install_requires=['einops>=0.6', 'numpy', 'torch>=2.6', 'tqdm'],
    extras_require={
        'openmmlab': [
            'mmcv-lite>=2.1.0,<2.2',
            'mmdet>=3.2.0,<3.4',
            'mmengine>=0.7.1,<1',
            'setuptools<81',
        ],
        'onedl': [
            'onedl-mmcv>=2.3.6,<3',
            'onedl-mmdetection>=3.5.1,<4',
            'onedl-mmengine>=0.10.12,<1',
        ],
        'pretrain-openmmlab': ['mmpretrain>=1.2.0,<2', 'torchvision'],
        'pretrain-onedl': ['onedl-mmpretrain>=1.3.6,<2', 'torchvision'],
        'demo': ['matplotlib', 'opencv-python>=4', 'pycocotools'],
        'explore': ['matplotlib', 'opencv-python>=4', 'pycocotools', 'starlette', 'uvicorn'],
        'logging': ['seaborn', 'tensorboard'],
        'docs': ['furo', 'myst-parser', 'sphinx>=8', 'sphinx-copybutton'],
        'dev': [
            'hypothesis',
            'onnx',
            'onnxscript',
            'playwright',
            'pre-commit',
            'pycocotools',
            'pytest',
            'pytest-xdist',
            'ruff',
            'sybil',
        ],
    },
)
