"""Finding and reading images."""

import http.server
import os
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from lesa_mmdet.utils.errors import UserTypeError, UserValueError
from lesa_mmdet.utils.images import VideoWriter, find_images, read_image, write_image

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


def test_one_source_may_be_named_alone(folder):
    assert find_images(folder) == find_images(str(folder)) == find_images([folder])


def test_a_folder_is_taken_in_all_formats_and_what_is_left_out_is_said(folder, told):
    image = Image.open(folder / 'a.png')
    names = [f'z{index}.{end}' for index, end in enumerate(('tif', 'gif', 'ppm', 'JP2', 'webp'))]
    for name in names:
        image.save(folder / name)
    image.save(folder / 'z5.jfif', format='JPEG')
    image.save(folder / 'z6', format='PNG')
    os.mkfifo(folder / 'pipe.png')
    image.save(folder / '.hidden.png')
    (folder / '._a.png').write_bytes(b'what a Mac leaves beside a.png')
    found = find_images(folder)
    assert [Path(path).name for path in found] == ['a.png', 'b.PNG', *names, 'z5.jfif', 'z6']
    assert all(read_image(path).shape == (10, 20, 3) for path in found)
    (line,) = told
    assert '5 of 14 are left out' in line
    assert '._a.png, .hidden.png, below, notes.txt, pipe.png' in line
    told.clear()
    find_images([folder / 'a.png', f'{folder}/*.png'])
    assert not told


def test_what_opencv_does_not_write_is_an_error(tmp_path):
    wide = np.zeros((1, 70_000, 3), np.uint8)
    write_image(wide, tmp_path / 'new' / 'a.png')
    assert read_image(tmp_path / 'new' / 'a.png').shape == wide.shape
    for name in ('a.jpg', 'a.webp', 'a.nothing', 'a'):
        with pytest.raises(UserValueError, match=f'{name} cannot be written: .* 70000 x 1 pixels'):
            write_image(wide, tmp_path / name)
    with pytest.raises(OSError):
        write_image(wide, tmp_path / 'new' / 'a.png' / 'b.png')


@pytest.mark.parametrize(
    'fps, written',
    [(239.9532, 239.95), (30000 / 1001, 29.97), (1000 / 3, 333.33), (960, 960), (0, 25)]
    + [(0.001, 0.01), (0.5, 0.5), (float('nan'), 25), (float('inf'), 25), (1e6, 25), (-1, 25)],
)
def test_a_video_of_any_rate_is_whole(fps, written, tmp_path, told):
    writer = VideoWriter(tmp_path / 'new' / 'a.mp4', fps, (64, 48))
    for _ in range(5):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.close()
    video = cv2.VideoCapture(str(tmp_path / 'new' / 'a.mp4'))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 5
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(written, abs=0.005)
    assert any('gets 25 frames a second' in line for line in told) == (written == 25)


def test_a_video_that_is_not_written_is_an_error(tmp_path):
    path = tmp_path / 'a.mp4'
    with pytest.raises(UserValueError, match='a.mp4 cannot be written: .* no MPEG-4 of 9000 x 48'):
        VideoWriter(path, 25, (9000, 48))
    assert not path.exists()
    writer = VideoWriter(path, 25, (64, 48))
    for height in (48, 48, 40):  # OpenCV passes over a frame of another size
        writer.write(np.zeros((height, 64, 3), np.uint8))
    with pytest.raises(UserValueError, match='it has 2 of 3 frames'):
        writer.close()
    assert not path.exists()


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


@pytest.mark.parametrize(
    'source', [np.zeros((4, 4, 3)), [np.zeros((4, 4, 3))], b'a.jpg', None, 7, [None]]
)
def test_what_is_no_path_is_refused(source):
    with pytest.raises(UserTypeError, match='named by their paths or addresses, got a'):
        find_images(source)


def test_addresses_that_nobody_reads(folder):
    with pytest.raises(FileNotFoundError, match='file://.*a.png is neither an image nor a folder'):
        find_images(f'file://{folder}/a.png')
    for scheme in ('ftp', 'gopher'):
        with pytest.raises(UserValueError, match='no file backend for such an address'):
            read_image(f'{scheme}://host/a.png')
    with pytest.raises(UserValueError, match='below is a folder, but has to be a file'):
        read_image(folder / 'below')


def test_an_image_at_a_url_is_that_of_the_file(folder, url):
    np.testing.assert_array_equal(read_image(f'{url}/a.png'), read_image(folder / 'a.png'))
    assert read_image(f'{url}/a.png')[3, 7].tolist() == [7, 3, 0]  # RGB
    with pytest.raises(ValueError, match='none.png cannot be read: HTTP Error 404'):
        read_image(f'{url}/none.png')
    with pytest.raises(ValueError, match='notes.txt cannot be read: it is no image'):
        read_image(f'{url}/notes.txt')
