"""Images and videos in, drawings and COCO's results out."""

import json
import runpy

import cv2
import numpy as np
import pytest
import torch
from mmdet.apis import inference_detector
from mmengine.config import Config
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from lesa_mmdet.apis import infer
from lesa_mmdet.apis.load import load_model
from lesa_mmdet.apis.predictors import COCO_IDS, Predictor
from lesa_mmdet.upstream import CocoDataset
from lesa_mmdet.utils.images import read_image

from helpers.detectors import run_main, save_coordinates, save_detector
from helpers.paths import ROOT

MAIN = runpy.run_path(str(ROOT / 'tools' / 'infer.py'))['main']


@pytest.fixture(scope='module')
def detector(tmp_path_factory):
    return save_detector(tmp_path_factory.mktemp('detector'), dict(type='LESA'))


@pytest.fixture
def folder(tmp_path):
    """Two images."""
    folder = tmp_path / 'images'
    folder.mkdir()
    save_coordinates(folder / '000000000139.png', 120, 80)
    save_coordinates(folder / 'b.png', 80, 100)
    return folder


@pytest.fixture
def video(tmp_path):
    path = tmp_path / 'clip.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 10, (96, 64))
    for value in (0, 100, 200):
        writer.write(np.full((64, 96, 3), value, np.uint8))
    writer.release()
    return path


def results(out):
    return json.loads((out / 'predictions.json').read_text(encoding='utf-8'))


def test_predictions_are_the_detectors(detector, folder, tmp_path):
    report = infer([folder], *detector, tmp_path / 'out', score_thr=0)
    assert (report.done, report.skipped, report.unreadable) == (2, 0, {})
    truth = COCO(tmp_path / 'out' / 'images.json')
    loaded = truth.loadRes(str(tmp_path / 'out' / 'predictions.json'))
    assert {image['file_name']: id for id, image in truth.imgs.items()} == {
        '000000000139.png': 139,
        'b.png': 140,
    }
    model = load_model(*detector)
    for id, name in ((139, '000000000139.png'), (140, 'b.png')):
        expected = inference_detector(model, str(folder / name)).pred_instances.cpu()
        found = loaded.loadAnns(loaded.getAnnIds(imgIds=[id]))
        assert len(found) == len(expected) > 0
        corners = expected.bboxes.numpy()
        boxes = np.concatenate((corners[:, :2], corners[:, 2:] - corners[:, :2]), axis=1)
        np.testing.assert_allclose([f['bbox'] for f in found], boxes, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose([f['score'] for f in found], expected.scores, rtol=1e-5)
        assert [f['category_id'] - 1 for f in found] == expected.labels.tolist()
        for one, mask in zip(found, expected.masks.numpy(), strict=True):
            np.testing.assert_array_equal(coco_mask.decode(one['segmentation']), mask)
        drawn = read_image(tmp_path / 'out' / 'vis' / name)
        assert drawn.shape == read_image(folder / name).shape
        assert (drawn != read_image(folder / name)).any()


def test_nothing_above_the_threshold_is_drawn_and_all_is_kept(detector, folder, tmp_path):
    infer([folder / 'b.png'], *detector, tmp_path / 'out', score_thr=1, batch_size=2)
    np.testing.assert_array_equal(
        read_image(tmp_path / 'out' / 'vis' / 'b.png'), read_image(folder / 'b.png')
    )
    assert results(tmp_path / 'out')


def test_what_is_there_is_not_done_again(detector, folder, tmp_path):
    out = tmp_path / 'out'
    infer([folder / 'b.png'], *detector, out)
    drawn = (out / 'vis' / 'b.png').stat().st_mtime_ns
    report = infer([folder], *detector, out)
    assert (report.done, report.skipped) == (1, 1)
    assert (out / 'vis' / 'b.png').stat().st_mtime_ns == drawn
    assert {result['image_id'] for result in results(out)} == {139, 140}

    # An image that has changed, and a line that was cut off by a kill, are done again.
    save_coordinates(folder / 'b.png', 60, 60)
    records = out / 'records.jsonl'
    records.write_bytes(records.read_bytes()[:-5])
    report = infer([folder], *detector, out)
    assert (report.done, report.skipped) == (2, 0)
    sizes = {
        image['file_name']: image['width'] for image in COCO(out / 'images.json').imgs.values()
    }
    assert sizes == {'000000000139.png': 120, 'b.png': 60}
    assert infer([folder], *detector, out).skipped == 2


def test_what_was_done_before_a_crash_is_kept(detector, folder, tmp_path, monkeypatch):
    real, seen = Predictor.of, []

    def of(model):
        predictor = real(model)
        predict = predictor.predict

        def predict_once(images):
            seen.append(images)
            if len(seen) == 2:
                raise MemoryError
            return predict(images)

        monkeypatch.setattr(predictor, 'predict', predict_once)
        return predictor

    monkeypatch.setattr(Predictor, 'of', staticmethod(of))
    with pytest.raises(MemoryError):
        infer([folder], *detector, tmp_path / 'out')
    assert {result['image_id'] for result in results(tmp_path / 'out')} == {139}
    assert infer([folder], *detector, tmp_path / 'out').skipped == 1


def test_results_of_two_models_are_not_mixed(detector, folder, tmp_path):
    out = tmp_path / 'out'
    infer([folder], *detector, out)
    other = save_detector(tmp_path / 'other', dict(type='SelfAttention'))
    with pytest.raises(ValueError, match='out has results of another config and checkpoint'):
        infer([folder], *other, out)
    with pytest.raises(ValueError, match='results of another score_thr: name another folder'):
        infer([folder], *detector, out, score_thr=0.5)
    (out / 'records.jsonl').write_text('{\n', encoding='utf-8')
    with pytest.raises(ValueError, match='records.jsonl is broken'):
        infer([folder], *detector, out)


def test_images_of_the_same_name_are_kept_apart(detector, folder, tmp_path):
    (tmp_path / 'more').mkdir()
    save_coordinates(tmp_path / 'more' / 'b.png', 50, 70)
    infer([folder, tmp_path / 'more'], *detector, tmp_path / 'out')
    assert read_image(tmp_path / 'out' / 'vis' / 'b_2.png').shape == (70, 50, 3)
    images = COCO(tmp_path / 'out' / 'images.json').imgs
    assert {(i['file_name'], i['width']) for i in images.values()} >= {
        ('b.png', 80),
        ('b_2.png', 50),
    }


def test_a_video_is_drawn_and_every_frame_has_results(detector, video, tmp_path):
    out = tmp_path / 'out'
    report = infer([video], *detector, out, batch_size=2, score_thr=0)
    assert report.done == 1
    drawn = cv2.VideoCapture(str(out / 'vis' / 'clip.mp4'))
    assert drawn.get(cv2.CAP_PROP_FRAME_COUNT) == 3 and drawn.get(cv2.CAP_PROP_FPS) == 10
    images = COCO(out / 'images.json').imgs
    assert [i['file_name'] for i in images.values()] == [
        f'clip.mp4/frame_00000{index}' for index in range(3)
    ]
    assert {result['image_id'] for result in results(out)} == set(images)
    assert infer([video], *detector, out, score_thr=0).skipped == 1


@pytest.mark.parametrize(
    'fps, size, is_drawn', [(239.9532, (96, 64), True), (10, (8200, 16), False)]
)
def test_a_video_is_drawn_or_said_not_to_be(fps, size, is_drawn, detector, tmp_path):
    path, out = tmp_path / 'clip.avi', tmp_path / 'out'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), fps, size)
    for _ in range(2):
        writer.write(np.zeros((*size[::-1], 3), np.uint8))
    writer.release()
    report = infer(path, *detector, out)
    assert (report.done, bool(report.unreadable)) == (is_drawn, not is_drawn)
    assert cv2.VideoCapture(str(out / 'vis' / 'clip.mp4')).isOpened() == is_drawn
    if not is_drawn:
        assert 'no MPEG-4 of 8200 x 16 pixels' in report.unreadable[str(path)]
        assert not results(out)


def test_frames_that_cannot_be_read_are_said(detector, video, tmp_path, told):
    content = video.read_bytes()
    video.write_bytes(content[: content.rindex(b'00dc', 0, content.rindex(b'idx1'))])
    assert infer(video, *detector, tmp_path / 'out').done == 1
    assert any(f'video {video}: only 2 of 3 frames can be read' in line for line in told)


def test_an_image_that_cannot_be_drawn_is_named(detector, folder, tmp_path, monkeypatch):
    monkeypatch.setattr('cv2.imencode', lambda *_: (False, ()))
    report = infer(folder, *detector, tmp_path / 'out')
    assert report.done == 0 and len(report.unreadable) == 2
    assert all('cannot be written' in problem for problem in report.unreadable.values())


def test_what_cannot_be_read_is_named_and_the_rest_is_done(
    detector, folder, video, tmp_path, monkeypatch, capsys
):
    (folder / 'a.jpg').write_text('no image', encoding='utf-8')
    video.write_bytes(b'no video')
    arguments = (folder, video, *detector, '--out-dir', tmp_path / 'out', '--device', 'cpu')
    with pytest.raises(SystemExit) as stopped:
        run_main(monkeypatch, MAIN, *arguments, '--batch-size', 2)
    message = str(stopped.value)
    assert message.startswith('error: 2 could not be read:')
    assert f'image {folder}/a.jpg cannot be read' in message
    assert f'video {video} cannot be read' in message
    assert '2 done, 0 were there already' in capsys.readouterr().out
    assert {result['image_id'] for result in results(tmp_path / 'out')} == {139, 140}


def test_bad_arguments(detector, folder, tmp_path, monkeypatch):
    for arguments, message in (
        ((tmp_path / 'none', *detector), 'none is neither an image nor a folder'),
        ((folder, detector[0], tmp_path / 'none.pth'), 'none.pth does not exist'),
        ((folder, *detector, '--batch-size', 0), 'batch size has to be at least 1, got 0'),
    ):
        with pytest.raises(SystemExit, match=f'^error: .*{message}'):
            run_main(monkeypatch, MAIN, *arguments, '--out-dir', tmp_path / 'out')
        assert not (tmp_path / 'out').exists()


def test_coco_ids_are_those_of_the_annotations(coco_root):
    truth = COCO(coco_root / 'annotations' / 'instances_val2017_mini.json')
    names = CocoDataset.METAINFO['classes']
    assert len(COCO_IDS) == len(names)
    known = {category['name']: id for id, category in truth.cats.items()}
    assert {name: id for name, id in zip(names, COCO_IDS, strict=True) if name in known} == known


def test_a_classifier_names_its_best_classes(folder, tmp_path, mmpretrain):
    cfg = Config.fromfile(ROOT / 'configs' / 'imagenet' / 'lesa-resnet50_4xb32_in1k.py')
    cfg.model.backbone.base_channels = 16
    cfg.model.head.in_channels = 512
    cfg.dump(tmp_path / 'tiny.py')
    from mmpretrain import ImageClassificationInferencer, get_model

    state = dict(state_dict=get_model(cfg).state_dict())
    torch.save(state, tmp_path / 'tiny.pth')
    out = tmp_path / 'out'
    report = infer([folder], tmp_path / 'tiny.py', tmp_path / 'tiny.pth', out, batch_size=2)
    assert report.done == 2
    model = get_model(Config.fromfile(tmp_path / 'tiny.py'), str(tmp_path / 'tiny.pth'))
    (expected,) = ImageClassificationInferencer(model)(str(folder / 'b.png'))
    first, *rest = [result for result in results(out) if result['image_id'] == 140]
    assert first['category_id'] == expected['pred_label'] and len(rest) == 4
    assert first['score'] == pytest.approx(expected['pred_score'], rel=1e-4)
    assert (read_image(out / 'vis' / 'b.png') != read_image(folder / 'b.png')).any()
    categories = json.loads((out / 'images.json').read_text(encoding='utf-8'))['categories']
    assert len(categories) == 1000 and categories[0]['id'] == 0
