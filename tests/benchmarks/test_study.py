"""The study: its statistics, what is run and what is not run again, and a run of it."""

import argparse
import json
import math

import pytest
import study
import study_report
import torch
from mmdet.registry import MODELS as REGISTRY
from mmengine.optim import build_optim_wrapper
from study_models import DATA_SETS, MODELS

from helpers.paths import ROOT

SETTINGS = dict(epochs=1)


def result(model, seed, box_ap, data_set='shapes', **more):
    of_run = dict(data_set=data_set, model=model, seed=seed, box_ap=box_ap, mask_ap=box_ap / 2)
    return dict(of_run, parameters=1_500_000, step_seconds=0.2, mib=300.0, **more)


def test_difference_is_paired_by_seed_with_a_student_interval():
    mean, half = study_report.paired_difference({0: 0.3, 1: 0.5, 2: 0.7}, {2: 0.4, 1: 0.3, 0: 0.2})
    assert mean == pytest.approx(0.2)
    # Student's t of two degrees of freedom at 97.5%: 4.3027.
    assert half == pytest.approx(4.3027 * 0.1 / math.sqrt(3), rel=1e-4)


def test_difference_needs_seeds_in_common():
    assert study_report.paired_difference({0: 0.3}, {0: 0.1, 1: 9}) == (pytest.approx(0.2), None)
    assert study_report.paired_difference({0: 0.3}, {1: 0.1}) is None


def test_tables_show_means_intervals_and_who_found_out():
    results = [
        *(result('convolution', seed, ap) for seed, ap in enumerate((0.20, 0.22, 0.24))),
        *(result('lesa', seed, ap, unary=0.67) for seed, ap in enumerate((0.22, 0.24, 0.26))),
        *(result('swin', seed, ap, data_set='keyed') for seed, ap in enumerate((0.1, 0.36))),
    ]
    lines = study_report.tables(results).splitlines()
    lines = [line.replace('\N{NO-BREAK SPACE}', ' ') for line in lines]
    assert '| convolution | 3 | 22.0 ± 5.0 |  | 11.0 ± 2.5 |  |' in lines
    assert '| LESA | 3 | 24.0 ± 5.0 | +2.0 ± 0.0 | 12.0 ± 2.5 | +1.0 ± 0.0 |' in lines
    assert '| Swin | 2 | 1 | 23.0 ± 165.2 |  | 11.5 ± 82.6 |  |' in lines
    assert '| LESA | 1.50 M | 200 ms | 300 MiB | 67.0% |  |' in lines


def test_figure_is_drawn_of_few_runs(tmp_path):
    study_report.plot([result('lesa', 0, 0.2), result('swin', 0, 0.1)], tmp_path / 'study.png')
    assert (tmp_path / 'study.png').stat().st_size > 10_000


def test_every_model_is_compared_with_one_of_the_study():
    for name, model in MODELS.items():
        assert model.against is None or (model.against in MODELS and model.against != name)


def arguments(tmp_path, **changes):
    asked = dict(seeds=2, models=['convolution', 'lesa'], data_sets=['shapes', 'keyed'], jobs=1)
    paths = dict(work_dir=tmp_path, results=tmp_path / 'study.json')
    return argparse.Namespace(**{**asked, **paths, **changes})


@pytest.fixture
def runs(monkeypatch):
    """Runs that take no time; LESA fails on keyed shapes from seed 1."""
    started = []

    def run_apart(run, work_dir):
        started.append(run)
        run.folder(work_dir).mkdir(exist_ok=True)
        if run == ('keyed', 'lesa', 1):
            return None
        return result(run.model, run.seed, 0.2, data_set=run.data_set)

    monkeypatch.setattr(study, 'run_apart', run_apart)
    monkeypatch.setattr(study, 'configure', lambda run, work_dir: None)
    return started


def test_runs_seed_by_seed_and_what_is_missing_alone(tmp_path, runs):
    assert study.study(arguments(tmp_path, seeds=1), SETTINGS)
    of_seed_0 = [(s, m, 0) for s in ('shapes', 'keyed') for m in ('convolution', 'lesa')]
    assert runs == of_seed_0
    runs.clear()
    assert not study.study(arguments(tmp_path), SETTINGS)  # one fails
    of_seed_1 = [(s, m, 1) for s, m, _ in of_seed_0]
    assert runs == of_seed_1
    runs.clear()
    study.study(arguments(tmp_path), SETTINGS)
    assert runs == [('keyed', 'lesa', 1)]
    stored = study.load(tmp_path / 'study.json', SETTINGS)
    assert {(r['data_set'], r['model'], r['seed']) for r in stored} == {
        *of_seed_0,
        *of_seed_1[:-1],
    }
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ['keyed-lesa-1']


def test_results_of_another_schedule_are_refused(tmp_path):
    study.save(tmp_path / 'study.json', SETTINGS, [result('lesa', 0, 0.2)])
    with pytest.raises(ValueError, match=r"schedule \{'epochs': 1\}, not of \{'epochs': 2\}"):
        study.load(tmp_path / 'study.json', dict(epochs=2))


def test_result_that_a_killed_study_did_not_take_is_not_run_again(tmp_path):
    run = study.Run('shapes', 'lesa', 0)
    run.folder(tmp_path).mkdir()
    (run.folder(tmp_path) / 'result.json').write_text(
        json.dumps(result('lesa', 0, 0.2)), encoding='utf-8'
    )
    assert study.run_apart(run, tmp_path) == result('lesa', 0, 0.2)


@pytest.mark.parametrize('name', MODELS)
@pytest.mark.parametrize('data_set', DATA_SETS)
def test_config_of_every_model(name, data_set, tmp_path, monkeypatch):
    drawn = []
    fake = DATA_SETS[data_set]._replace(generate=lambda root, **_: drawn.append(root) or root)
    monkeypatch.setitem(study.DATA_SETS, data_set, fake)
    cfg = study.configure(study.Run(data_set, name, 3), tmp_path)
    assert drawn == [tmp_path / 'data' / data_set]
    assert cfg.model.roi_head.mask_head.num_classes == len(fake.classes)
    assert cfg.train_dataloader.dataset.metainfo.classes == fake.classes
    assert cfg.val_evaluator.ann_file.startswith(str(tmp_path)) and cfg.randomness.seed == 3


def test_context_alone_learns_faster(tmp_path, monkeypatch):
    fake = DATA_SETS['keyed']._replace(generate=lambda root, **_: root)
    monkeypatch.setitem(study.DATA_SETS, 'keyed', fake)
    cfg = study.configure(study.Run('keyed', 'lesa-silent-fast-15', 0), tmp_path)
    backbone = torch.nn.ModuleDict({'backbone': REGISTRY.build(cfg.model.backbone)})
    cfg.optim_wrapper.optimizer.lr = 1
    groups = build_optim_wrapper(backbone, cfg.optim_wrapper).optimizer.param_groups
    rates = [group['lr'] for group in groups]
    names = [name for name, _ in backbone.named_parameters()]
    faster = {name for name, rate in zip(names, rates, strict=True) if rate == 5}
    assert faster and set(rates) == {1, 5}
    assert faster == {name for name in names if '.context.' in name or '.fusion.' in name}


def test_a_model_is_trained_on_its_data_sets_alone(tmp_path, runs):
    study.study(arguments(tmp_path, seeds=1, models=['lesa-silent', 'lesa-silent-15']), SETTINGS)
    assert ('keyed', 'lesa-silent-15', 0) in runs and ('keyed', 'lesa-silent', 0) in runs
    assert ('shapes', 'lesa-silent-15', 0) not in runs and ('shapes', 'lesa-silent', 0) in runs


@pytest.mark.slow
def test_killed_run_goes_on(tmp_path, monkeypatch):
    config = tmp_path / 'config.py'
    config.write_text(
        f"_base_ = ['{study.CONFIG}']\n"
        'data = dict(num_train=8, num_val=4)\n'
        'max_epochs = 2\n'
        'train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)\n',
        encoding='utf-8',
    )
    monkeypatch.setattr(study, 'CONFIG', config)
    run = study.Run('keyed', 'lesa', 0)
    whole = study.train(run, tmp_path / 'whole')
    folder = run.folder(tmp_path / 'whole')
    assert 0 <= whole['box_ap'] <= 1 and 0.5 < whole['unary'] < 1 and whole['mib'] > 10

    (folder / 'epoch_2.pth').unlink()
    (folder / 'last_checkpoint').write_text(str(folder / 'epoch_1.pth'), encoding='utf-8')
    resumed = study.train(run, tmp_path / 'whole')
    for key in ('box_ap', 'mask_ap', 'unary', 'parameters'):
        assert resumed[key] == whole[key]


def test_weights_to_start_from_come_first_and_once(tmp_path):
    asked = [study.Run('shapes', model, 0) for model in ('lesa-silent', 'lesa-fresh', 'lesa-15')]
    convolution = study.Run('shapes', 'convolution', 0)
    assert study.with_starts(asked, tmp_path) == [convolution, *asked]
    assert study.with_starts([convolution, *asked], tmp_path) == [convolution, *asked]
    convolution.weights(tmp_path).parent.mkdir()
    convolution.weights(tmp_path).touch()
    assert study.with_starts(asked, tmp_path) == asked


def test_start_is_loaded_by_a_run_that_has_saved_nothing(tmp_path, monkeypatch):
    fake = DATA_SETS['shapes']._replace(generate=lambda root, **_: root)
    monkeypatch.setitem(study.DATA_SETS, 'shapes', fake)
    run = study.Run('shapes', 'lesa-silent', 3)
    cfg = study.configure(run, tmp_path)
    assert not cfg.resume and cfg.load_from == str(run.start().weights(tmp_path))
    assert cfg.train_cfg.max_epochs == cfg.param_scheduler[-1].T_max == 5
    run.folder(tmp_path).mkdir()
    (run.folder(tmp_path) / 'epoch_2.pth').touch()
    cfg = study.configure(run, tmp_path)
    assert cfg.resume and not cfg.get('load_from')


def test_tables_show_what_a_start_gives_before_any_step():
    aps = dict(start_box_ap=0.1, start_mask_ap=0.05)
    lines = study_report.tables([result('lesa-silent', 0, 0.2, **aps)]).splitlines()
    assert f'| {MODELS["lesa-silent"].label} | 10.0 | 5.0 |  |  |' in lines


@pytest.mark.parametrize('name', study.RESULTS)
def test_documentation_shows_the_stored_figures(name):
    stored = json.loads(study.RESULTS[name].read_text(encoding='utf-8'))
    text = (ROOT / 'docs' / 'study.md').read_text(encoding='utf-8')
    assert study_report.tables(stored['runs']) in text
