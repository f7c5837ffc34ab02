"""Sphinx: ``make docs``."""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]
about = {}
exec((ROOT / 'lesa_mmdet' / 'version.py').read_text(encoding='utf-8'), about)

project = 'lesa_mmdet'
author = 'the lesa_mmdet contributors'
copyright = author
version = release = about['__version__']

extensions = [
    'myst_parser',
    'sphinx.ext.apidoc',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'sphinx.ext.viewcode',
    'sphinx_copybutton',
]
exclude_patterns = ['_build', 'README.md']  # README.md is index.md's text
myst_heading_anchors = 3

# The key 'automodule_options' of the modules does not reach packages.
os.environ['SPHINX_APIDOC_OPTIONS'] = 'members,show-inheritance,ignore-module-all'
shutil.rmtree(ROOT / 'docs' / 'api', ignore_errors=True)  # pages of modules that are gone
apidoc_modules = [
    {
        'path': '../lesa_mmdet',
        'destination': 'api',
        'exclude_patterns': ['**/classifiers.py'],  # needs mmpretrain
        'max_depth': 3,
    }
]
autodoc_inherit_docstrings = False  # those of mmdet's classes are not ours to format
autodoc_member_order = 'bysource'
autodoc_typehints = 'none'  # the docstrings have them, with shapes
# Read the Docs has no compiled operators of mmcv, and needs none.
autodoc_mock_imports = [
    name for name in ('mmcv._ext', 'starlette', 'uvicorn') if find_spec(name) is None
]
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = 'furo'
html_title = f'lesa_mmdet {version}'
copybutton_exclude = '.linenos, .gp, .go'
