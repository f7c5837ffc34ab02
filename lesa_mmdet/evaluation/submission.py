"""Results for the COCO evaluation server: written, checked and zipped."""

import json
import re
from collections.abc import Sequence
from copy import deepcopy
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from pycocotools.coco import COCO
from tqdm import tqdm

from ..checkpoints.atomic import write_atomic
from ..datasets.masks import find_rle_problem
from ..upstream import METRICS, CocoMetric
from ..utils.configs import name_of
from ..utils.errors import UserFileNotFoundError, UserValueError
from ..utils.schema import ANY, FINITE, ID, NUMBER, find_problem, read_json, require, whole
from ..utils.text import shown

# What a result has for each task. Were there boxes with the masks, the server would take the areas
# of the boxes for those of the masks.
KEYS = {
    'bbox': ('image_id', 'category_id', 'score', 'bbox'),
    'segm': ('image_id', 'category_id', 'score', 'segmentation'),
}
_KINDS = {
    'image_id': ID,
    'category_id': ID,
    'score': FINITE,
    'bbox': [NUMBER],
    'segmentation': ANY,  # looked at below
}
_SIDE = whole(1, 2**17)  # pixels
_IMAGES = {
    'images': [{'id': ID, 'height': _SIDE, 'width': _SIDE}],
    'categories': [{'id': ID}],
    'annotations?': [{'id': ID, 'image_id': ID, 'category_id': ID}],
}


@METRICS.register_module()
class CocoSubmission(CocoMetric):
    """mmdet's ``CocoMetric`` in ``format_only`` mode, which ends with zip files for the server.

    With ``outfile_prefix.bbox.json`` and ``.segm.json`` it writes ``.images.json``, the ids of
    the images that were tested: an image without detections is not in the others.

    Args:
        algorithm (str): Name of the results on the server.
        ann_file (str): COCO's list of the images.
        outfile_prefix (str): What the paths of written files begin with.
        **kwargs: As of ``CocoMetric``.
    """

    def __init__(self, algorithm: str, ann_file: str, outfile_prefix: str, **kwargs: Any) -> None:
        super().__init__(
            ann_file=ann_file, outfile_prefix=outfile_prefix, format_only=True, **kwargs
        )
        self.algorithm = _check_algorithm(algorithm)
        self.ann_file = ann_file

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Write, check and zip the results, instead of those of an earlier run if there are any.

        Args:
            results (list): A pair (ground truth, detections) for every image, as of ``CocoMetric``.

        Returns:
            dict[str, float]: Nothing: the server has the truth.

        Raises:
            ValueError: If the server would refuse the results, or they lack images. They are
                written all the same.
        """
        Path(self.outfile_prefix).parent.mkdir(parents=True, exist_ok=True)
        _remove_earlier(self.outfile_prefix)
        super().compute_metrics(results)
        image_ids = sorted(truth['img_id'] for truth, _ in results)
        Path(f'{self.outfile_prefix}.images.json').write_text(
            json.dumps(image_ids), encoding='utf-8'
        )
        pack(self.outfile_prefix, self.ann_file, self.algorithm)
        return {}


def _remove_earlier(prefix: str) -> None:
    """Remove what an earlier run has left under a prefix, so that nothing of it is packed."""
    for kind in (*KEYS, 'images'):
        Path(f'{prefix}.{kind}.json').unlink(missing_ok=True)
    for task in KEYS:
        for archive in Path(f'{prefix}_{task}').glob('detections_*_results.zip'):
            archive.unlink()


def configure(cfg: Config, switch: Config, algorithm: str, work_dir: Path) -> Config:
    """Turn a config's test into one that writes results for the server.

    Args:
        cfg (Config): A detector's config, with a COCO data set for the test.
        switch (Config): ``ann_file`` and ``img``, below that data set's ``data_root``, and
            ``test_evaluator``.
        algorithm (str): Name of the results on the server.
        work_dir (Path): Folder for the results.

    Returns:
        Config: A copy, with absolute paths to annotations and images, so that nobody joins them
        with the ``data_root`` twice, and a pipeline that asks for no annotations: there are none.

    Raises:
        ValueError: If the name cannot be part of a file's, or the data set is a wrapper of others.
        FileNotFoundError: If annotations or images are not there.
    """
    cfg = deepcopy(cfg)
    dataset = cfg.test_dataloader.dataset
    if 'pipeline' not in dataset:
        raise UserValueError(
            f'test_dataloader.dataset is a {name_of(dataset.type)}, which has no images of its '
            "own; for test-dev it has to be the data set itself, as type='CheckedCocoDataset'"
        )
    root = Path(dataset.get('data_root') or '.').absolute()
    ann_file, img = str(root / switch.ann_file), str(root / switch.img)
    for path in (ann_file, img):
        if not Path(path).exists():
            raise UserFileNotFoundError(
                f'{path} does not exist; get test-dev with: '
                f'python tools/download_coco.py {root} --parts test-info test'
            )
    dataset.update(ann_file=ann_file, data_prefix=ConfigDict(img=img))
    dataset.pipeline = [
        step for step in dataset.pipeline if name_of(step['type']) != 'LoadAnnotations'
    ]
    cfg.test_evaluator = ConfigDict(
        **switch.test_evaluator,
        ann_file=ann_file,
        algorithm=_check_algorithm(algorithm),
        outfile_prefix=str(Path(work_dir).absolute() / 'results'),
    )
    return cfg


def pack(prefix: str, ann_file: str, algorithm: str) -> list[Path]:
    """Check result files, and zip them as the server wants them.

    Args:
        prefix (str): What the paths of ``CocoSubmission``'s files begin with.
        ann_file (str): COCO's list of the images.
        algorithm (str): Name of the results on the server.

    Returns:
        list[Path]: For each task there are results for, a file
        ``PREFIX_TASK/detections_SPLIT_ALGORITHM_results.zip``, with a json file of that name.

    Raises:
        ValueError: If the server would refuse the results, or they lack images.
        FileNotFoundError: If there are none.
    """
    _check_algorithm(algorithm)
    found = {task: Path(f'{prefix}.{task}.json') for task in KEYS}
    found = {task: path for task, path in found.items() if path.is_file()}
    if not found:
        raise UserFileNotFoundError(f'neither {prefix}.bbox.json nor {prefix}.segm.json is there')
    coco = COCO()
    coco.dataset = read_json(ann_file, 'annotation file')
    require(coco.dataset, _IMAGES, f'annotation file {ann_file}')
    coco.createIndex()
    tested_file, tested = Path(f'{prefix}.images.json'), None
    if tested_file.exists():
        tested = read_json(tested_file)
        require(tested, [ID], str(tested_file))
    split = re.sub('^(image_info|instances)_', '', Path(ann_file).stem)
    name = f'detections_{split}_{algorithm}_results'

    archives = []
    for task, path in found.items():
        results = read_json(path)
        check_results(results, task, coco, tested, str(path))
        text = json.dumps([{key: result[key] for key in KEYS[task]} for result in results])
        coco.loadRes(json.loads(text))
        archives.append(Path(f'{prefix}_{task}', f'{name}.zip'))
        packed = BytesIO()
        with ZipFile(packed, 'w', ZIP_DEFLATED) as archive:
            archive.writestr(f'{name}.json', text)
        write_atomic(archives[-1], packed.getvalue())
        with_detections = len({result['image_id'] for result in results})
        print_log(
            f'ready: {archives[-1]}: {len(results):,} detections in {with_detections:,} of '
            f'{len(coco.imgs):,} images',
            logger='current',
        )
    return archives


def check_results(
    results: Any, task: str, coco: COCO, tested: Sequence[int] | None, name: str
) -> None:
    """Check that the server would accept results, and that they are complete.

    Args:
        results (Any): Content of a result file.
        task (str): 'bbox' or 'segm'.
        coco (COCO): COCO's list of the images.
        tested (Sequence[int], optional): Ids of the images that were tested. Without it, each image
            has to have a detection.
        name (str): What to call the results in errors.

    Raises:
        ValueError: If results are malformed, name unknown images or categories, have wrong masks,
            or lack images. The first ones are named.
    """
    if not isinstance(results, list) or not results:
        raise UserValueError(f'{name} has to be a list of detections, but is {shown(results)}')
    problems = []
    for index, result in enumerate(tqdm(results, desc=f'checking {Path(name).name}')):
        problem = _find_result_problem(result, task, coco)
        if problem:
            problems.append(f'detection {index}: {problem}')
    _raise_first(name, 'detections are wrong', problems)

    if tested is None:
        tested = {result['image_id'] for result in results}
        what = 'images have no detections, and no .images.json next to it says they were tested'
    else:
        what = 'images were not tested'
    missing = sorted(set(coco.imgs).difference(tested), key=lambda i: (isinstance(i, str), i))
    _raise_first(name, what, [f'image {shown(image_id)}' for image_id in missing])


def _find_result_problem(result: Any, task: str, coco: COCO) -> str | None:
    missing = [key for key in KEYS[task] if not isinstance(result, dict) or key not in result]
    if missing:
        return f'it lacks {", ".join(missing)}'
    problem = find_problem(result, {key: _KINDS[key] for key in KEYS[task]})
    if problem:
        return f'its {problem}'
    if result['image_id'] not in coco.imgs:
        return f'there is no image {shown(result["image_id"])}'
    if result['category_id'] not in coco.cats:
        return f'there is no category {shown(result["category_id"])}'
    if task == 'bbox':
        box = result['bbox']
        if len(box) != 4 or min(box[2:]) < 0:
            return f'its bbox is {shown(box)}, but must be [x, y, width, height]'
        return None
    image = coco.imgs[result['image_id']]
    mask = result['segmentation']
    problem = find_rle_problem(mask, image['height'], image['width'])
    if problem is None and isinstance(mask['counts'], list):
        return 'its mask has a list of run lengths, but the server takes the text of pycocotools'
    return problem


def _raise_first(name: str, what: str, problems: Sequence[str], first: int = 5) -> None:
    if problems:
        named = '; '.join(problems[:first]) + '; ...' * (len(problems) > first)
        raise UserValueError(f'{name}: {len(problems):,} {what}: {named}')


def _check_algorithm(algorithm: str) -> str:
    if not re.fullmatch(r'[\w.-]+', algorithm):
        raise UserValueError(
            f'algorithm is {algorithm!r}, but may have letters, digits, ".", "-" and "_" only: it '
            'becomes part of a file name'
        )
    return algorithm
