"""What pyproject.toml cannot say: the configs go into the wheel."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


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


setup(cmdclass={'build_py': BuildWithConfigs})
