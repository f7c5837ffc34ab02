"""Images per second and peak memory of ImageNet training: convolution and LESA, dense and exact.

Images and labels are random; the step is forward, cross entropy, backward and SGD:

    python benchmarks/pretrain.py --batch 8
"""

from collections.abc import Callable

import forms  # noqa: F401  registers the dense form
import torch
import torch.nn.functional as F
from measure import announce, check_outputs, compare, make_parser, measure_training, save
from torch import nn
from torch.optim import SGD, Optimizer

from lesa_mmdet import LESA_ResNet
from lesa_mmdet.utils.command import command

CLASSES = 1000
OPERATORS = {
    'conv': None,
    'lesa': dict(type='LESA', position='flattened'),
    'lesa-dense': dict(type='LESA', position='flattened-dense'),
}


def build(form: str, batch: int, size: int, device: str) -> tuple[Optimizer, Callable]:
    """The optimizer of a ResNet-50 classifier, and what computes its loss."""
    backbone = LESA_ResNet(
        50,
        operator=OPERATORS[form],
        strides=(1, 2, 2, 1),
        input_size=(size, size),
        norm_eval=False,
    )
    fc = nn.Linear(backbone.feat_dim, CLASSES)
    model = nn.ModuleList((backbone, fc)).to(device).train()
    optimizer = SGD(model.parameters(), lr=1e-4, momentum=0.9, nesterov=True)
    images = torch.randn(batch, 3, size, size, device=device)
    labels = torch.randint(CLASSES, (batch,), device=device)

    def compute_loss() -> torch.Tensor:
        return F.cross_entropy(fc(backbone(images)[-1].mean((2, 3))), labels)

    return optimizer, compute_loss


@command
def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument('--forms', nargs='+', choices=OPERATORS, default=list(OPERATORS))
    parser.add_argument('--batch', type=int, default=8, help='images')
    parser.add_argument('--size', type=int, default=224, help='image side')
    args = parser.parse_args()

    check_outputs(args.json)
    about = announce(args.device)
    print(f'ResNet-50, {args.size} x {args.size}, batch {args.batch}, one training step')

    def figures(result: dict) -> str:
        return f'{args.batch / result["seconds"]:8.2f} images/s {result["mib"]:7.0f} MiB'

    how = (measure_training, args.device, args.seconds, build)
    cases = {form: (*how, form, args.batch, args.size) for form in args.forms}
    records = [
        dict(form=form, batch=args.batch, size=args.size, result=result)
        for form, result in compare(cases, figures).items()
    ]
    save(args.json, 'pretrain', about, records)


if __name__ == '__main__':
    main()
