"""The page in a browser: what is shown is what the models do at the position that was clicked."""

import base64
import time

import cv2
import numpy as np
import pytest

from lesa_mmdet.apis.load import load_model
from lesa_mmdet.utils.images import read_image

from helpers.detectors import save_coordinates

# The weights on a panel's canvas, which the browser enlarges over the image.
CANVAS = """canvas => {
  if (canvas.hidden) return null;
  const {width, height} = canvas;
  const pixels = canvas.getContext('2d').getImageData(0, 0, width, height).data;
  return [height, width, ...pixels.filter((_, index) => index % 4 === 3)];
}"""


@pytest.fixture(scope='module')
def explorer(served):
    """The same models in this process."""
    explorer = pytest.importorskip('lesa_mmdet.visualization.explorer')
    models = {name: load_model(*detector) for name, detector in served.detectors.items()}
    return explorer.Explorer(models)


@pytest.fixture(scope='module')
def scenes(explorer, served):
    return [explorer.open(read_image(path)) for path in served.images]


def expected_levels(looks, name):
    heat = next(heat for heat in looks[0]['heats'] if heat['name'] == name)
    return np.frombuffer(base64.b64decode(heat['values']), np.uint8).reshape(heat['shape'])


def levels(page, element='look-0'):
    drawn = page.locator(f'#{element} .view .heat').evaluate(CANVAS)
    return drawn and np.array(drawn[2:]).reshape(drawn[:2])


def wait_for(page, looks, name):
    """Wait until the first model's panel shows a map of it."""
    expected, deadline = expected_levels(looks, name), time.monotonic() + 60
    while time.monotonic() < deadline:
        drawn = levels(page)
        # 1 of 255: float32 may differ between processes.
        if drawn is not None and drawn.shape == expected.shape:
            if np.abs(drawn - expected.astype(int)).max() <= 1:
                return
        page.wait_for_timeout(20)
    pytest.fail(f'{name} is not shown; said: {page.locator("#said").inner_text()}')


def click(page, x, y, size, panel=0):
    """Click on a pixel of the image; by how much it is enlarged is no matter."""
    view = page.locator('.view').nth(panel)
    box = view.bounding_box()
    position = dict(x=(x + 0.5) / size[0] * box['width'], y=(y + 0.5) / size[1] * box['height'])
    view.click(position=position)


def upload(page, path):
    page.locator('#upload').set_input_files(path)


def test_it_opens_with_an_image_a_position_and_sentences(visit, explorer, scenes):
    page = visit()
    wait_for(page, explorer.look(scenes[0], scenes[0].point, 'layer3.5'), 'mean of heads')
    assert (page.input_value('#x'), page.input_value('#y')) == tuple(map(str, scenes[0].point))
    said = page.locator('#said').inner_text()
    assert said.count('. ') == 1 and 'the marked position' in said and 'Click' in said
    assert page.evaluate('Array.from(document.images).every(image => image.naturalWidth === 960)')
    legend = page.locator('#look-0 .legend').inner_text()
    high = next(
        h['high'] for h in explorer.look(scenes[0], scenes[0].point, 'layer3.5')[0]['heats']
    )
    assert f'{high:.3g}'.rstrip('0') in legend and 'the largest weight' in legend


def test_clicks_on_any_panel_layers_and_maps(visit, explorer, scenes):
    page, size = visit(), scenes[0].size
    last = page.locator('.view').count() - 1
    for panel, point in ((0, (50, 20)), (last, (70, 50))):
        click(page, *point, size, panel)
        wait_for(page, explorer.look(scenes[0], point, 'layer3.5'), 'mean of heads')
        for mark in page.locator('.mark').all():  # in all panels alike
            left = mark.evaluate('mark => parseFloat(mark.style.left)')
            assert left == pytest.approx(100 * (point[0] + 0.5) / size[0], abs=0.01)
    assert expected_levels(
        explorer.look(scenes[0], (50, 20), 'layer3.5'), 'mean of heads'
    ).tolist() != (levels(page).tolist())
    page.select_option('#layer', 'layer4.2')
    looks = explorer.look(scenes[0], (70, 50), 'layer4.2')
    wait_for(page, looks, 'mean of heads')

    names = [heat['name'] for heat in looks[0]['heats']]
    options = page.locator('#what option').evaluate_all('all => all.map(option => option.value)')
    heads = [f'head {k}' for k in range(1, 9)]
    assert options == ['mean of heads', *heads, 'local field', 'mean omega']
    for name in names:
        page.select_option('#what', name)
        wait_for(page, looks, name)
    page.locator('#look-0 .thumb[data-name="head 3"]').click()
    wait_for(page, looks, 'head 3')
    assert page.input_value('#what') == 'head 3'
    pressed = page.locator('#look-0 .thumb[aria-pressed=true]')
    assert pressed.count() == 1 and pressed.get_attribute('data-name') == 'head 3'
    page.select_option('#what', 'local field')
    assert levels(page) is None and page.locator('#look-0 .fields rect:not(.rim)').count() == 9


def test_a_model_without_heads_shows_its_local_field(visit, served):
    if 'conv' not in served.detectors:
        pytest.skip('one model')
    page = visit()
    page.select_option('#what', 'head 2')
    assert levels(page, 'look-1') is None
    assert page.locator('#look-1 .fields rect:not(.rim)').count() == 9
    assert 'no head 2 here' in page.locator('#look-1 .legend').inner_text()


def test_detections_can_be_chosen_by_score_and_switched_off(visit, scenes):
    page = visit()
    scores = [finding['score'] for finding in scenes[0].findings[0]]
    labels = page.locator('.labels').first.locator('span')
    for key, least in (('Home', 0.05), ('End', 1)):
        page.locator('#score').press(key)
        assert labels.count() == sum(score >= least for score in scores)
        assert page.locator('#threshold').inner_text() == f'{least:.2f}'
    page.locator('#score').press('Home')
    assert labels.count() > 0
    page.locator('#detections').uncheck()
    assert labels.count() == 0 and page.locator('.found *').count() == 0


def test_other_images_and_uploads(visit, explorer, scenes, tmp_path):
    page = visit()
    page.select_option('#image', label='b.png')
    wait_for(page, explorer.look(scenes[1], scenes[1].point, 'layer3.5'), 'mean of heads')
    own = save_coordinates(tmp_path / 'own.png', 200, 100)
    scene = explorer.open(read_image(own))
    for _ in range(2):  # the same file may be chosen again
        upload(page, own)
        wait_for(page, explorer.look(scene, scene.point, 'layer3.5'), 'mean of heads')
        page.select_option('#image', label='a.png')
        wait_for(page, explorer.look(scenes[0], scenes[0].point, 'layer3.5'), 'mean of heads')
    assert all(
        asked.startswith('http://127.0.0.1:') for asked in page.asked_for if asked[:5] != 'data:'
    )


def test_what_is_no_image_or_too_large_is_refused_in_a_sentence(visit, explorer, scenes, tmp_path):
    page = visit()
    (tmp_path / 'text.png').write_text('no image', encoding='utf-8')
    (tmp_path / 'long.png').write_bytes(bytes(20 * 2**20 + 1))
    cv2.imwrite(str(tmp_path / 'huge.png'), np.zeros((6400, 6400), np.uint8))
    cv2.imwrite(str(tmp_path / 'narrow.png'), np.zeros((40000, 3), np.uint8))
    for name, message in (
        ('text.png', 'the file is no image of BMP, JPEG, PNG, WEBP, or broken'),
        ('huge.png', 'the image has 6400 x 6400 pixels; at most 40000000 are taken'),
        ('narrow.png', 'the image has 3 x 40000 pixels; the longer side may be at most 20 times'),
        ('long.png', 'the file has 20971521 bytes; at most 20971520 are taken'),
    ):
        upload(page, tmp_path / name)
        page.get_by_text(message).wait_for()
    click(page, 50, 20, scenes[0].size)  # what was there is there
    wait_for(page, explorer.look(scenes[0], (50, 20), 'layer3.5'), 'mean of heads')
    page.errors = [said for said in page.errors if '400 (Bad Request)' not in said]


def test_visitors_do_not_see_each_others_images(visit, explorer, scenes, tmp_path):
    one, other = visit(), visit()
    own = save_coordinates(tmp_path / 'own.png', 200, 100)
    scene = explorer.open(read_image(own))
    upload(one, own)
    wait_for(one, explorer.look(scene, scene.point, 'layer3.5'), 'mean of heads')
    click(other, 50, 20, scenes[0].size)
    wait_for(other, explorer.look(scenes[0], (50, 20), 'layer3.5'), 'mean of heads')


def test_who_leaves_is_forgotten(visit):
    page = visit()
    address = page.locator('.picture').first.evaluate('image => image.src')
    assert page.request.get(address).ok
    page.goto('about:blank')
    deadline = time.monotonic() + 10
    while page.request.get(address).status != 410 and time.monotonic() < deadline:
        time.sleep(0.1)
    answer = page.request.get(address)
    assert answer.status == 410 and 'choose it again' in answer.text()


def test_everything_is_reached_by_keyboard_and_has_a_name(visit, explorer, scenes):
    page = visit()
    reached = []
    for _ in range(40):
        page.keyboard.press('Tab')
        reached.append(
            page.evaluate('document.activeElement.id || document.activeElement.className')
        )
    controls = {'image', 'upload', 'layer', 'what', 'x', 'y', 'detections', 'score'}
    assert controls | {'view', 'thumb'} <= {name.split()[0] for name in reached if name}
    for role, name in (
        ('combobox', 'Image'), ('combobox', 'Layer'), ('combobox', 'Where it looks'),
        ('spinbutton', 'Position, x in pixels'), ('checkbox', 'Detections'),
        ('slider', 'Detections with a score above'), ('button', 'head 8, up to'),
    ):  # fmt: skip
        assert page.get_by_role(role, name=name).first.is_visible(), name
    view = page.locator('.view').first
    label = view.get_attribute('aria-label')
    assert 'Arrow keys' in label and 'It finds nothing.' in label  # of so low scores
    page.locator('#score').press('Home')
    assert f'It finds {scenes[0].findings[0][0]["name"]}' in view.get_attribute('aria-label')
    page.fill('#x', '50')
    page.fill('#y', '20')
    page.keyboard.press('Enter')
    wait_for(page, explorer.look(scenes[0], (50, 20), 'layer3.5'), 'mean of heads')
    view.focus()
    page.keyboard.press('ArrowRight')
    left, _, right, _ = explorer.look(scenes[0], (50, 20), 'layer3.5')[0]['cell']
    moved = (int(50 + right - left), 20)
    wait_for(page, explorer.look(scenes[0], moved, 'layer3.5'), 'mean of heads')
    page.locator('#look-0 .thumb').nth(4).press('Enter')
    assert page.input_value('#what') == 'head 4'


@pytest.mark.parametrize('scheme', ['light', 'dark'])
@pytest.mark.parametrize('size', [(1366, 768), (1920, 1080)])
def test_it_fits_a_screen(visit, tmp_path, size, scheme):
    page = visit(*size, color_scheme=scheme)
    for shape in ((200, 200), (300, 200), (200, 300)):
        shown = page.locator('.picture').first.get_attribute('src')
        upload(page, save_coordinates(tmp_path / f'{shape}.png', *shape))
        page.wait_for_function(
            "shown => document.querySelector('.picture').getAttribute('src') !== shown", arg=shown
        )
        page.wait_for_selector('main[aria-busy=false]')
        for view in page.locator('.view').all():
            box = view.bounding_box()
            assert round(max(box['width'], box['height'])) >= 640
            assert box['width'] / box['height'] == pytest.approx(shape[0] / shape[1], rel=0.01)
        end = page.locator('.thumb').last.bounding_box()
        assert end['y'] + end['height'] <= size[1]
        scrolls = 'document.documentElement.scrollWidth > innerWidth'
        assert not page.evaluate(scrolls)
    dark = page.evaluate('getComputedStyle(document.body).backgroundColor')
    assert (sum(map(int, dark[4:-1].split(','))) < 300) == (scheme == 'dark')


def test_a_click_answers_within_a_second(visit, scenes):
    page = visit()
    took = []
    for index in range(5):
        shown = page.locator('#look-0 .legend').inner_text()
        begun = time.monotonic()
        click(page, 10 + 15 * index, 10 + 8 * index, scenes[0].size)
        page.wait_for_function(
            "shown => document.querySelector('#look-0 .legend').innerText !== shown", arg=shown
        )
        took.append(time.monotonic() - begun)
    assert sorted(took)[2] < 1, took


def test_the_server_asked_nobody(visit, served):
    visit()
    assert not served.asked.exists(), served.asked.read_text(encoding='utf-8')
