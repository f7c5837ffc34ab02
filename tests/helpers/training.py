"""What tests start trainings with, and what they ask of them."""

import os
import re
import signal
from types import SimpleNamespace

import torch
from mmengine.hooks import ParamSchedulerHook
from mmengine.registry import OPTIMIZERS, PARAM_SCHEDULERS

from patches.forked import execute_in_session, start_forked


def start(*command, output):
    """Start a tool of the repository in a session of its own, which prints to a file."""
    output.write_text('', encoding='utf-8')
    return start_forked(execute_in_session, list(map(str, command)), output=output)


def kill(process):
    """SIGKILL a tool that was started so, workers and all."""
    os.killpg(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL


def printed_metrics(output):
    """Metrics of a test by name, to four decimals, as mmengine prints them.

    Its JSON file says the same, but all processes of a distributed test write it at once.
    """
    *_, line = re.findall(r'\(test\) \[.*', output)
    return {name: float(value) for name, value in re.findall(r'(\S+/\S+): (\S+)', line)}


def replay_schedule(cfg, epoch_length):
    """Learning rates (epochs, epoch_length) as mmengine's schedulers and its hook set them."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = OPTIMIZERS.build(dict(cfg.optim_wrapper.optimizer, params=[parameter]))
    schedulers = [
        PARAM_SCHEDULERS.build(dict(scheduler, optimizer=optimizer, epoch_length=epoch_length))
        for scheduler in cfg.param_scheduler
    ]
    runner, hook = SimpleNamespace(param_schedulers=schedulers), ParamSchedulerHook()
    rates = torch.zeros(cfg.train_cfg.max_epochs, epoch_length)
    for epoch in rates:
        for iteration in range(epoch_length):
            epoch[iteration] = optimizer.param_groups[0]['lr']
            optimizer.step()
            hook.after_train_iter(runner, iteration)
        hook.after_train_epoch(runner)
    return rates


def start_residuals(backbone):
    """Let residual branches count, as in a pre-trained backbone: from zero nothing else learns."""
    for name, parameter in backbone.named_parameters():
        if name.endswith('bn3.weight'):
            torch.nn.init.constant_(parameter, 0.2)


def step_by_hand(model, batch, optimizer):
    """One training step that shows the gradients: every parameter gets a finite one."""
    model.train()
    losses = model(**model.data_preprocessor(batch, training=True), mode='loss')
    loss, logged = model.parse_losses(losses)
    assert all(value.isfinite().all() for value in logged.values()), logged
    loss.backward()
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert [name for name, p in trainable.items() if p.grad is None] == []
    assert [name for name, p in trainable.items() if not p.grad.isfinite().all()] == []
    still = [name for name, p in trainable.items() if 'backbone' in name and not p.grad.any()]
    # Softmax drops what is the same for all keys.
    assert all(name.endswith('similarity_norm.bias') for name in still)
    before = [p.detach().clone() for p in trainable.values()]
    OPTIMIZERS.build(dict(optimizer, lr=1e-5, params=trainable.values())).step()
    assert not all(map(torch.equal, before, trainable.values()))
