"""Images per second and peak memory of ImageNet training: convolution and LESA, dense and exact.

Images and labels are random; the step is forward, cross entropy, backward and SGD:

    python benchmarks/pretrain.py --batch 8 --json pretrain.json
"""

import argparse

import forms  # noqa: F401  registers the dense form
import torch
import torch.nn.functional as F
from measure import Meter, check_outputs, in_own_process, machine, ratios, save
from torch import nn

from lesa_mmdet import LESA_ResNet
from lesa_mmdet.command import command

CLASSES = 1000
OPERATORS = {
    'conv': None,
    'lesa': dict(type='LESA', position='flattened'),
    'lesa-dense': dict(type='LESA', position='flattened-dense'),
}


def run(form: str, batch: int, size: int, device: str, seconds: float) -> dict:
    """Measure the training step of a ResNet-50 classifier, in this process."""
    meter = Meter(device, seconds)
    torch.manual_seed(0)
    backbone = LESA_ResNet(
        50,
        operator=OPERATORS[form],
        strides=(1, 2, 2, 1),
        input_size=(size, size),
        norm_eval=False,
    )
    fc = nn.Linear(backbone.feat_dim, CLASSES)
    model = nn.ModuleList((backbone, fc)).to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, nesterov=True)
    images = torch.randn(batch, 3, size, size, device=device)
    labels = torch.randint(CLASSES, (batch,), device=device)

    def train() -> None:
        loss = F.cross_entropy(fc(backbone(images)[-1].mean((2, 3))), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()  # as mmengine does: a forward pass finds no gradients in memory

    return meter(train)


@command
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--forms', nargs='+', choices=OPERATORS, default=list(OPERATORS))
    parser.add_argument('--batch', type=int, default=8, help='images')
    parser.add_argument('--size', type=int, default=224, help='image side')
    parser.add_argument('--seconds', type=float, default=5, help='time to repeat each step for')
    parser.add_argument('--json', help='file for all figures')
    args = parser.parse_args()

    check_outputs(args.json)
    about = machine(args.device)
    print(', '.join(f'{key} {value}' for key, value in about.items()))
    print(f'ResNet-50, {args.size} x {args.size}, batch {args.batch}, one training step')
    records, base = [], None
    for form in args.forms:
        result = in_own_process(run, form, args.batch, args.size, args.device, args.seconds)
        records.append(dict(form=form, batch=args.batch, size=args.size, result=result))
        if 'error' in result:
            print(f'  {form:<10} {result["error"]}', flush=True)
            continue
        base = base or result
        figures = f'{args.batch / result["seconds"]:8.2f} images/s {result["mib"]:7.0f} MiB'
        print(f'  {form:<10}', figures, ' ', ratios(result, base), flush=True)
    save(args.json, about, records)


if __name__ == '__main__':
    main()
