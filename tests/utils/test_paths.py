"""Files and folders that are there or not, and ``~``, which not everybody takes for a folder."""

import pytest

from lesa_mmdet.utils.configs import load_config
from lesa_mmdet.utils.images import find_images, read_image
from lesa_mmdet.utils.paths import check_exists, check_output, is_url

from helpers.detectors import save_coordinates


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    save_coordinates(tmp_path / 'a.png', 20, 10)
    (tmp_path / 'config.py').write_text('x = 1', encoding='utf-8')
    return tmp_path


def test_home_is_where_the_system_says(home):
    assert find_images(['~/a.png', '~', '~/*.png']) == [str(home / 'a.png')] * 3
    assert read_image('~/a.png').shape == (10, 20, 3)
    assert load_config('~/config.py').x == 1
    check_exists('~/a.png', 'image', 'none')
    check_output('~/new', '--out', is_folder=True)


def test_where_mmengine_takes_it_literally_the_whole_path_is_asked_for(home):
    with pytest.raises(FileNotFoundError, match=f'~/a.png does not exist.*: write {home}/a.png'):
        check_exists('~/a.png', 'annotation file', 'none', knows_home=False)


@pytest.mark.parametrize('path, url', [('http://x/a', True), ('s3://b', True), ('a/b', False)])
def test_urls(path, url):
    assert is_url(path) == url
    check_exists('http://x/a', 'image', 'none')
