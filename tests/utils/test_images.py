"""Finding and reading images."""

import http.server
import threading

import numpy as np
import pytest

from lesa_mmdet.utils.images import find_images, read_image

from helpers.detectors import save_coordinates


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / 'images'
    (folder / 'below').mkdir(parents=True)
    for name in ('b.PNG', 'a.png', 'below/c.png'):
        save_coordinates(folder / name, 20, 10)
    (folder / 'notes.txt').write_text('no image', encoding='utf-8')
    return folder


@pytest.fixture
def url(folder):
    """Address of a server of the images."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}'
        server.shutdown()


def test_files_folders_patterns_and_urls(folder):
    a, b, c = (str(folder / name) for name in ('a.png', 'b.PNG', 'below/c.png'))
    assert find_images([folder, a, 'http://host/d.jpg']) == [a, b, a, 'http://host/d.jpg']
    assert find_images([f'{folder}/**/*.png']) == [a, c]


def test_a_file_with_the_signs_of_a_pattern_is_itself(folder):
    save_coordinates(folder / 'x[1].png', 20, 10)
    assert find_images([folder / 'x[1].png']) == [str(folder / 'x[1].png')]


def test_sources_without_images(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'has no image \(.bmp, .jpeg'):
        find_images([tmp_path])
    with pytest.raises(FileNotFoundError, match='none.jpg is neither an image nor a folder'):
        find_images([tmp_path / 'none.jpg'])
    with pytest.raises(FileNotFoundError, match=r'no file matches .*\*.jpg'):
        find_images([tmp_path / '*.jpg'])


def test_an_image_at_a_url_is_that_of_the_file(folder, url):
    np.testing.assert_array_equal(read_image(f'{url}/a.png'), read_image(folder / 'a.png'))
    assert read_image(f'{url}/a.png')[3, 7].tolist() == [7, 3, 0]  # RGB
    with pytest.raises(ValueError, match='none.png cannot be read: HTTP Error 404'):
        read_image(f'{url}/none.png')
    with pytest.raises(ValueError, match='notes.txt cannot be read: it is no image'):
        read_image(f'{url}/notes.txt')
