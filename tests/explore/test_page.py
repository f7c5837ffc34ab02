"""The page in a browser: what is shown is what the models do at the position that was clicked."""

import json
import time
import urllib.error
import urllib.request

import cv2
import mmcv
import numpy as np
import pytest

from lesa_mmdet.apis.load import load_model
from lesa_mmdet.utils.images import read_image

from helpers.detectors import save_coordinates


@pytest.fixture(scope='module')
def explorer(served):
    """The same models in this process."""
    explorer = pytest.importorskip('lesa_mmdet.visualization.page')
    models = {name: load_model(*detector) for name, detector in served.detectors.items()}
    return explorer.Explorer(models)


def shown(page, element):
    """The image that an element shows, RGB."""
    source = page.locator(f'#{element} img').first.get_attribute('src')
    answer = page.request.get(source)
    assert answer.ok and answer.body(), f'{element}: {source} is answered {answer.status}'
    return mmcv.imfrombytes(answer.body(), channel_order='rgb').astype(int)


def wait_for(page, element, expected):
    """Wait until an element shows an image, but for what JPEG does to it."""
    off, deadline = 'nothing', time.monotonic() + 60
    while time.monotonic() < deadline:
        if page.locator(f'#{element} img').count():
            image = shown(page, element)
            if image.shape == expected.shape:
                off = np.abs(image - expected).mean()
                if off < 3:
                    return
        page.wait_for_timeout(100)
    said = page.locator('[data-testid=toast-body]').all_inner_texts()
    pytest.fail(f'{element} does not show what it should; off by {off}; said: {said}')


def click(page, x, y, element='picture-0'):
    """Click on a pixel of the picture as it is shown; by how much it is enlarged is no matter."""
    image = page.locator(f'#{element} img').first
    box, width = image.bounding_box(), image.evaluate('image => image.naturalWidth')
    scale = box['width'] / width
    image.click(position=dict(x=x * scale, y=y * scale))


def test_the_page_shows_detections_maps_layers_and_uploads(visit, explorer, served, tmp_path):
    page = visit()
    scene = explorer.open(served.images[0])
    assert scene.zoom == 4  # 96 pixels wide
    for index, picture in enumerate(explorer.pictures(scene, 0.3)):
        wait_for(page, f'picture-{index}', picture)

    # A click on any picture shows all models at the same position.
    click(page, 4 * 50 + 1, 4 * 20 + 1)
    maps = explorer.maps(scene, (50, 20), 'layer3.5')
    for index, drawn in enumerate(maps):
        wait_for(page, f'maps-{index}', drawn)
    elsewhere = explorer.maps(scene, (70, 50), 'layer3.5')
    assert np.abs(elsewhere[0].astype(int) - maps[0]).mean() > 4
    click(page, 4 * 70 + 1, 4 * 50 + 1, f'picture-{len(maps) - 1}')
    wait_for(page, 'maps-0', elsewhere[0])

    page.get_by_role('combobox', name='Layer').click()
    page.get_by_role('option', name='layer4.2').click()
    wait_for(page, 'maps-0', explorer.maps(scene, (70, 50), 'layer4.2')[0])

    slider = page.locator('#score input[type=range]')
    slider.focus()
    page.keyboard.press('End')
    wait_for(page, 'picture-0', mmcv.imrescale(read_image(served.images[0]), 4))

    page.get_by_role('combobox', name='Image').click()
    page.get_by_role('option', name='b.png').click()
    wait_for(page, 'picture-0', mmcv.imrescale(read_image(served.images[1]), 3))
    assert not page.locator('#maps-0 img').count()

    own = save_coordinates(tmp_path / 'own.png', 200, 100)
    page.locator('#upload').locator('xpath=..').locator('input[type=file]').set_input_files(own)
    wait_for(page, 'picture-0', mmcv.imrescale(read_image(own), 2))
    assert all(
        asked.startswith(('http://127.0.0.1:', 'data:', 'blob:')) for asked in page.asked_for
    )


def test_what_is_no_image_or_too_large_is_refused(visit, tmp_path):
    page = visit()
    before = shown(page, 'picture-0')
    (tmp_path / 'text.png').write_text('no image', encoding='utf-8')
    cv2.imwrite(str(tmp_path / 'huge.png'), np.zeros((6400, 6400), np.uint8))
    for name, message in (
        ('text.png', 'the file is no image of BMP, JPEG, PNG, WEBP, or broken'),
        ('huge.png', 'the image has 6400 x 6400 pixels; at most 40000000 are taken'),
    ):
        upload = page.locator('#upload').locator('xpath=..').locator('input[type=file]')
        upload.set_input_files(tmp_path / name)
        page.get_by_text(message).wait_for()
    np.testing.assert_array_equal(shown(page, 'picture-0'), before)


def test_visitors_do_not_see_each_others_images(visit, explorer, served, tmp_path):
    one, other = visit(), visit()
    own = save_coordinates(tmp_path / 'own.png', 200, 100)
    one.locator('#upload').locator('xpath=..').locator('input[type=file]').set_input_files(own)
    wait_for(one, 'picture-0', explorer.pictures(explorer.open(own), 0.3)[0])
    click(other, 4 * 50 + 1, 4 * 20 + 1)
    scene = explorer.open(served.images[0])
    wait_for(other, 'maps-0', explorer.maps(scene, (50, 20), 'layer3.5')[0])
    wait_for(other, 'picture-0', explorer.pictures(scene, 0.3)[0])


def status(url, data=None):
    """Status of a request."""
    request = urllib.request.Request(url, data, {'Content-Type': 'application/json'})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_no_other_file_is_served_and_nobody_else_is_asked(url, served):
    assert status(url) == 200
    config, checkpoint = served.detectors['lesa']
    for path in ('/etc/passwd', checkpoint, config, served.images[0], 'README.md', 'setup.py'):
        assert status(f'{url}/gradio_api/file={path}') in (403, 404), path
    for address in ('http://example.org/a.png', 'https://example.org/a.png'):
        assert status(f'{url}/gradio_api/file={address}') == 403
    # What the browser sends when a file was uploaded, with a file of the server or an address.
    with urllib.request.urlopen(f'{url}/config') as answer:
        page = json.load(answer)
    ids = {c['props'].get('elem_id'): c['id'] for c in page['components']}
    (event,) = [d for d in page['dependencies'] if d['targets'] == [[ids['upload'], 'upload']]]
    for number, path in enumerate((str(checkpoint), 'http://example.org/a.png')):
        file = dict(path=path, meta=dict(_type='gradio.FileData'))
        session = f'stranger{number}'
        body = dict(data=[file, 0.3], fn_index=event['id'], session_hash=session)
        assert status(f'{url}/gradio_api/queue/join', json.dumps(body).encode()) == 200
        with urllib.request.urlopen(f'{url}/gradio_api/queue/data?session_hash={session}') as said:
            finished = [line for line in said.read().decode().splitlines() if 'completed' in line]
        assert '"success":false' in finished[0], finished
    assert not served.asked.exists(), served.asked.read_text(encoding='utf-8')
