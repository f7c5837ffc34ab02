import copy

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.multiprocessing import start_processes

from lesa_mmdet.attention import attend, flattened_scales, relative_logits, similarity_scales
from lesa_mmdet.attention.decomposed.reference import (
    attend_flattened_normalized,
    attend_normalized,
    similarity_terms,
)

from patches.forked import start_server

HEADS = 2


@pytest.fixture(scope='module')
def make_maps():
    """Queries, keys and the tables of a kind of position, each around a mean of its own."""

    def make(batch, rows, cols, d, dtype=torch.float64, mean=1.0, position='decomposed'):
        generator = torch.Generator().manual_seed(0)
        places = rows * cols
        tables = {
            'decomposed': ((2 * rows - 1, d), (2 * cols - 1, d)),
            'flattened': ((2 * places - 1, 3 * d),),
        }
        shapes = ((batch, HEADS, places, d), (batch, HEADS, places, d), *tables[position])
        maps = []
        for shape in shapes:
            x = torch.randn(shape, generator=generator, dtype=torch.float64)
            offset = torch.randn(shape[-1], generator=generator, dtype=torch.float64)
            maps.append((x + mean * offset).to(dtype).requires_grad_())
        return maps

    return make


def make_norm(kind=nn.BatchNorm2d, dtype=torch.float64, terms=2, **kwargs):
    norm = kind(terms * HEADS, dtype=dtype, **kwargs)
    for x in norm.state_dict().values():
        if x.is_floating_point():
            nn.init.uniform_(x, 0.5, 1.5)
    return norm


def dense_terms(q, k, height, width):
    return torch.cat(similarity_terms(q, k, *relative_logits(q, height, width)), dim=1)


def dense_flattened_terms(q, k, table):
    terms = []
    v = q.new_zeros(*q.shape[:-1], table.shape[1] - 2 * q.shape[-1])
    attend_flattened_normalized(q, k, v, table.t(), lambda x: terms.append(x) or x)
    return terms[0]


# Scales of the terms from maps, the terms themselves, and how many there are.
POSITIONS = {
    'decomposed': (similarity_scales, dense_terms, 2),
    'flattened': (
        lambda norm, q, k, table: flattened_scales(norm, q, k, table.t()),
        dense_flattened_terms,
        3,
    ),
}


def attend_dense(norm, q, k, v, height, width):
    return attend_normalized(q, k, v, *relative_logits(q, height, width), norm)


def attend_folded(norm, q, k, v, height, width, backend='reference'):
    content, position = similarity_scales(norm, q, k, height, width)
    row, col = relative_logits(q * position[:, None, None], height, width)
    return attend(q * content[:, None, None], k, v, row, col, backend=backend)


@pytest.mark.parametrize('mode', ['train', 'eval'])
@pytest.mark.parametrize(
    'kwargs',
    [{}, dict(momentum=None), dict(affine=False), dict(track_running_stats=False)],
    ids=str,
)
@pytest.mark.parametrize('backend', ['reference', 'chunked'])
@given(batch=st.integers(1, 3), rows=st.integers(1, 5), cols=st.integers(2, 5), d=st.integers(1, 4))
def test_is_the_batch_norm_of_the_dense_terms(
    make_maps, differentiate, assert_close, mode, kwargs, backend, batch, rows, cols, d
):
    q, k, height, width = make_maps(batch, rows, cols, d)
    v = torch.randn(batch, HEADS, rows * cols, 3, dtype=torch.float64)
    dense = make_norm(**kwargs).train(mode == 'train')
    folded = copy.deepcopy(dense)
    inputs = [q, k, v, height, width]
    for _ in range(2):  # running statistics of two steps
        expected = differentiate(lambda *x: attend_dense(dense, *x), inputs)
        actual = differentiate(lambda *x: attend_folded(folded, *x, backend=backend), inputs)
        assert_close(actual, expected, 1e-9, ('output', 'q', 'k', 'v', 'height', 'width'))
    torch.testing.assert_close(folded.state_dict(), dense.state_dict())


def test_the_norm_trains(make_maps):
    maps = make_maps(2, 3, 4, 3)
    v = torch.randn(2, HEADS, 12, 3, dtype=torch.float64)
    dense = make_norm()
    folded = copy.deepcopy(dense)
    gradients = []
    for attend_normed, norm in ((attend_dense, dense), (attend_folded, folded)):
        attend_normed(norm, *maps[:2], v, *maps[2:]).square().sum().backward()
        gradients.append((norm.weight.grad, norm.bias.grad))
    torch.testing.assert_close(gradients[1][0], gradients[0][0])
    # The softmax cancels the bias: zero, but there, or DistributedDataParallel would complain.
    assert torch.equal(gradients[1][1], torch.zeros(2 * HEADS))
    assert gradients[0][1].abs().max() < 1e-12


@pytest.mark.parametrize('position', POSITIONS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
def test_large_means_cancel_nothing(make_maps, dtype, position):
    scales, dense, count = POSITIONS[position]
    maps = make_maps(2, 6, 7, 8, dtype, mean=50.0, position=position)
    norm = make_norm(dtype=torch.float32, terms=count, momentum=1.0)
    scales(norm, *maps)
    terms = dense(*(x.double() for x in maps))
    mean, var = terms.mean((0, 2, 3)), terms.transpose(0, 1).flatten(1).var(1)
    assert (mean.abs() > 10 * var.sqrt()).any()
    torch.testing.assert_close(norm.running_mean.double(), mean, rtol=1e-5, atol=0)
    torch.testing.assert_close(norm.running_var.double(), var, rtol=1e-4, atol=0)


@pytest.mark.parametrize('position', POSITIONS)
def test_autocast_leaves_statistics_alone(make_maps, position):
    scales, _, count = POSITIONS[position]
    maps = make_maps(1, 4, 4, 4, torch.float32, position=position)
    plain = make_norm(dtype=torch.float32, terms=count)
    autocast = copy.deepcopy(plain)
    expected = scales(plain, *maps)
    with torch.autocast('cpu', torch.bfloat16):
        actual = scales(autocast, *maps)
    assert torch.equal(torch.cat(actual), torch.cat(expected))
    torch.testing.assert_close(autocast.state_dict(), plain.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize('mode', ['train', 'eval'])
@pytest.mark.parametrize('position', POSITIONS)
def test_tensors_without_values(make_maps, mode, position):
    scales, _, count = POSITIONS[position]
    maps = [x.to('meta') for x in make_maps(2, 3, 4, 3, position=position)]
    norm = make_norm(terms=count).to('meta').train(mode == 'train')
    assert [x.shape for x in scales(norm, *maps)] == [(HEADS,)] * count


@pytest.mark.parametrize('position', POSITIONS)
def test_an_empty_batch_leaves_statistics_as_they_are(make_maps, position):
    compute, _, count = POSITIONS[position]
    norm = make_norm(terms=count)
    plain = copy.deepcopy(norm)
    plain(torch.empty(0, count * HEADS, 4, 4, dtype=torch.float64))
    maps = make_maps(2, 3, 4, 3, position=position)
    maps = [maps[0][:0], maps[1][:0], *maps[2:]]
    scales = torch.cat(compute(norm, *maps))
    torch.testing.assert_close(norm.state_dict(), plain.state_dict())
    for grad in torch.autograd.grad(scales.sum(), maps):
        assert not grad.any()


@pytest.mark.parametrize('position', POSITIONS)
@pytest.mark.parametrize('first', [0, 1])
def test_synchronized_statistics_are_those_of_the_joint_batch(tmp_path, make_maps, position, first):
    compute, _, count = POSITIONS[position]
    maps = make_maps(3, 3, 4, 3, position=position)
    norm = make_norm(terms=count)
    state = copy.deepcopy(norm.state_dict())
    scales = torch.cat(compute(norm, *maps))
    scales.square().sum().backward()

    # None or one image in the first process, the others in the second.
    torch.save((state, [x.detach() for x in maps], first), tmp_path / 'inputs.pt')
    start_server()
    start_processes(synchronize, (2, tmp_path, position), nprocs=2, start_method='forkserver')
    parts = [torch.load(tmp_path / f'{rank}.pt') for rank in range(2)]
    for part in parts:
        torch.testing.assert_close(part['scales'], scales.detach())
        torch.testing.assert_close(part['state'], norm.state_dict())
    # Both processes differentiate the same scales, so that together they count double.
    (q, k, *tables), weight = maps, norm.weight
    grads = [part['grads'] for part in parts]
    torch.testing.assert_close(torch.cat([x[0] for x in grads]), 2 * q.grad)
    torch.testing.assert_close(torch.cat([x[1] for x in grads]), 2 * k.grad)
    for i, x in enumerate((*tables, weight), start=2):
        torch.testing.assert_close(grads[0][i] + grads[1][i], 2 * x.grad)


def synchronize(rank, processes, folder, position):
    compute, _, count = POSITIONS[position]
    dist.init_process_group('gloo', f'file://{folder}/store', rank=rank, world_size=processes)
    state, (q, k, *tables), first = torch.load(folder / 'inputs.pt')
    norm = make_norm(nn.SyncBatchNorm, terms=count)
    norm.load_state_dict(state)
    mine = slice(first) if rank == 0 else slice(first, None)
    maps = [x.requires_grad_() for x in (q[mine].clone(), k[mine].clone(), *tables)]
    scales = torch.cat(compute(norm, *maps))
    scales.square().sum().backward()
    grads = [x.grad for x in (*maps, norm.weight)]
    result = dict(scales=scales.detach(), state=norm.state_dict(), grads=grads)
    torch.save(result, folder / f'{rank}.pt')
    dist.destroy_process_group()
