"""What becomes of a checkpoint that a backbone or a classifier is given."""

import re
from collections.abc import Collection, Mapping, MutableMapping
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from ..attention import fit_table
from ..utils.errors import UserValueError
from ..utils.text import shorten
from .elsa import convert_elsa
from .lesa import convert_lesa
from .resnet import different_stages, from_convolutions

# Operators by a part of their names; of several that an operator has, the first here counts.
_OPERATORS = {
    'surroundings': 'ELSA',
    'fusion': 'LESA',
    'local': 'static LESA',
    'project': 'attention augmentation',
    'context': 'self-attention',
}
_TABLES = ('context.height', 'context.width')
_OPERATOR_PART = re.compile(r'\.(?:conv2|attn\.operator)\.(\w+)')
_OUTPUT_NORM = re.compile(r'norm\d+\.')  # of a Swin


def convert_official(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the authors' parameters, those of LESA's or of ELSA's, to ours.

    Args:
        state_dict (Mapping[str, Tensor]): State dict of an operator, a backbone, a classifier or
            a detector. Keys may have the prefix ``module.`` (dropped) or ``backbone.`` (kept).
            Other keys stay unchanged, so that the conversion may be repeated.

    Returns:
        dict[str, Tensor]: The same parameters under our names, laid out as our layers have them;
        constants are gone.
    """
    return convert_elsa(convert_lesa(state_dict))


def adapt_state_dict(
    state_dict: MutableMapping[str, Any], prefix: str, backbone: nn.Module, strict: bool = True
) -> None:
    """Turn the part of a state dict that belongs to a backbone into what the backbone takes.

    Renames the authors' keys, drops the classifier, makes operators of convolutions if the backbone
    says so (``pretrained_conv``), fits position tables to the backbone's, replaces positions of
    another kind, adds the offsets of deformable convolutions to a checkpoint
    without any, and gives a Swin that a classifier has trained its output norms. Changes
    ``state_dict`` in place, as a module's ``_load_from_state_dict`` may, and logs one line for each
    kind of change.

    Args:
        state_dict (MutableMapping[str, Any]): A state dict.
        prefix (str): Prefix of the backbone's keys in it.
        backbone (nn.Module): The backbone that is about to load it.
        strict (bool): Whether everything has to fit. If not, what is missing or unexpected is left
            to torch; and always if nothing of the state dict belongs to the backbone of a detector.

    Raises:
        ValueError: If anything else does not fit the backbone.
    """
    given = convert_official(_take(state_dict, prefix))
    given = {key: value for key, value in given.items() if not key.startswith('fc.')}
    own, operator, keys = backbone.state_dict(), _operator_of(given), set(given)
    if not keys & own.keys() and (not strict or (prefix and not keys)):
        state_dict.update({prefix + key: value for key, value in given.items()})
        return  # torch says what is missing, if anybody wants to know

    if getattr(backbone, 'pretrained_conv', False):
        from_convolutions(given, backbone, zero_init_context=bool(backbone.zero_init_context))
    _fit_positions(given, own)
    _start_offsets(given, own)
    _fit_output_norms(given, own)
    _add_indices(given, own)
    problems = _compare(given, own)
    if problems and strict:
        raise UserValueError(
            f'the checkpoint does not fit {type(backbone).__name__}'
            f'{_explain(operator, _operator_of(own), keys, own, backbone)}, keys: {problems}'
        )
    require_finite(given, own)
    state_dict.update({prefix + key: value for key, value in given.items()})


class TakesCheckpoints(nn.Module):
    """A backbone that takes the authors' checkpoints unconverted, and refuses what does not fit."""

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """As torch's.

        Torch does not pass ``strict`` on to where a module takes its part: if part of a state dict
        is enough, it is completed here with the parameters that are there.
        """
        if strict:
            return super().load_state_dict(state_dict, assign=assign)
        given, own = dict(state_dict), self.state_dict()
        adapt_state_dict(given, '', self, strict=False)
        complete = {key: given.get(key, value) for key, value in own.items()}
        keys = super().load_state_dict(complete, assign=assign)
        keys.missing_keys.extend(key for key in own if key not in given)
        keys.unexpected_keys.extend(key for key in given if key not in own)
        return keys

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        adapt_state_dict(state_dict, prefix, self)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def adapt_classifier(state_dict: MutableMapping[str, Any], prefix: str) -> None:
    """Turn the part of a state dict that belongs to a classifier into what mmpretrain's takes.

    LESA's authors, and torchvision, have the classifier's layer as ``fc`` among the backbone's,
    ELSA's as ``head``: it becomes ``head.fc``, the rest ``backbone.*``. Changes ``state_dict`` in
    place.

    Args:
        state_dict (MutableMapping[str, Any]): A state dict.
        prefix (str): Prefix of the classifier's keys in it.
    """
    given = convert_official(_take(state_dict, prefix))
    if not any(key.startswith(('backbone.', 'head.')) for key in given):
        given = {
            ('head.' if key.startswith('fc.') else 'backbone.') + key: value
            for key, value in given.items()
        }
    state_dict.update({prefix + key: value for key, value in given.items()})


def _take(state_dict: MutableMapping[str, Any], prefix: str) -> dict[str, Any]:
    """Take what belongs to a module out of a state dict, without the prefix."""
    keys = [key for key in state_dict if key.startswith(prefix)]
    return {key[len(prefix) :]: state_dict.pop(key) for key in keys}


def _fit_positions(given: dict[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Give the state dict position tables of the backbone's kind and sizes, in place."""
    resized, fresh, replaced = [], [], []
    for key in [key for key in own if key.endswith(_TABLES)]:
        context = key.rpartition('.')[0]
        if key not in given:
            given[key] = _fresh(own, key)
            fresh.append(key)
            if given.pop(f'{context}.relative', None) is not None:
                _keep_content(given, own, context)
                replaced.append(context)
        elif given[key].shape != own[key].shape and given[key].dim() == 2 and len(given[key]) % 2:
            given[key] = fit_table(given[key], (own[key].shape[0] + 1) // 2)
            resized.append(key)
    if resized:
        log(f'{len(resized)} position tables are fitted to the map sizes of this backbone.')
    if fresh:
        log(f'{len(fresh)} position tables start fresh: the checkpoint has none of this kind.')
    if replaced:
        log(f'{len(replaced)} similarity norms keep their content part; positions start fresh.')
        log(f'{len(replaced)} output norms keep the half that belongs to the values.')


def _keep_content(given: dict[str, Tensor], own: Mapping[str, Tensor], context: str) -> None:
    """Of an operator with flattened positions, keep what one with decomposed positions also has."""
    for leaf in ('weight', 'bias', 'running_mean', 'running_var'):
        similarity, output = f'{context}.similarity_norm.{leaf}', f'{context}.output_norm.{leaf}'
        # [content, query, key] -> [content, position]; attention augmentation has no norms
        if similarity in given and similarity in own:
            heads = given[similarity].shape[0] // 3
            fresh = _fresh(own, similarity)[heads:]
            given[similarity] = torch.cat((given[similarity][:heads], fresh))
        if output in given:  # value and its embedding, channel by channel
            given[output] = given[output][::2]


def _start_offsets(given: dict[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Let the deformable convolutions start as the plain ones of an ImageNet backbone, in place."""
    if not any('conv_offset' in key for key in given):
        offsets = {key: _fresh(own, key) for key in own if 'conv_offset' in key}
        given.update(offsets)
        if offsets:
            log(f'{len(offsets)} offset parameters start fresh: the checkpoint has none.')


def _fit_output_norms(given: dict[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Give a Swin its output norms, one a stage, if a classifier had one only, in place."""
    wanted = [key for key in own if _OUTPUT_NORM.match(key)]
    final = [key for key in given if key.startswith('norm.') or _OUTPUT_NORM.match(key)]
    if (
        not wanted
        or len({key.partition('.')[0] for key in final}) != 1
        or set(wanted) == set(final)
    ):
        return
    last = {key: given.pop(key) for key in final}
    if len(wanted) == len(final):  # a classifier's for a classifier
        given.update(zip(sorted(wanted), (last[key] for key in sorted(final)), strict=True))
        return
    given.update({key: _fresh(own, key) for key in wanted})
    log(f"{len(wanted) // 2} output norms start fresh: the checkpoint is a classifier's.")


def _add_indices(given: dict[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Add the constants of window attention that the authors' checkpoints do not have, in place."""
    for key in own:
        if key.endswith('relative_position_index'):
            given.setdefault(key, own[key])


def _compare(given: Mapping[str, Any], own: Mapping[str, Tensor]) -> str:
    """What is missing, unexpected or of another shape; nothing if all fits."""
    optional = 'num_batches_tracked'  # not in checkpoints of old versions of torch
    problems = {
        'missing': [key for key in own if key not in given and not key.endswith(optional)],
        'unexpected': [key for key in given if key not in own],
        'of another shape': [
            f'{key} {tuple(given[key].shape)} instead of {tuple(own[key].shape)}'
            for key in own
            if key in given and given[key].shape != own[key].shape
        ],
    }
    return describe(problems)


def require_finite(weights: Mapping[str, Any], own: Mapping[str, Tensor] | None = None) -> None:
    """Refuse the weights of a training that went wrong.

    Args:
        weights (Mapping[str, Any]): A state dict.
        own (Mapping[str, Tensor], optional): That of the model they go into: a large number of
            float64 may be infinite in its dtype.

    Raises:
        ValueError: If some are infinite or not a number, complex, or variances below 0.
    """
    infinite, complex_, negative = [], [], []
    for key, value in weights.items():
        if not isinstance(value, Tensor) or value.is_meta:
            continue
        if value.is_complex():
            complex_.append(key)
        elif value.is_floating_point():
            target = (own or {}).get(key, value)
            if target.is_floating_point():
                value = value.to(target.dtype)
            if not value.isfinite().all():
                infinite.append(key)
            elif key.endswith('running_var') and (value < 0).any():
                negative.append(key)
    if complex_:
        raise UserValueError(
            f'the weights are complex numbers: {describe({"tensors": complex_})}, of which a model '
            'would take the real part alone'
        )
    if negative:
        raise UserValueError(
            f'variances are below 0 ({describe({"tensors": negative})}), whose square roots are no '
            'numbers: the file is damaged, or no training has written it'
        )
    if infinite:
        raise UserValueError(
            f'the weights are not finite (NaN or infinity): {describe({"tensors": infinite})}; '
            'their training went wrong, most often by too high a learning rate'
        )


def describe(problems: Mapping[str, Collection[str]]) -> str:
    """Count problems and name the first of each kind; empty if there are none.

    Args:
        problems (Mapping[str, Collection[str]]): Keys, or texts about them, by kind of problem.

    Example:
        >>> describe({'missing': ['a', 'b'], 'unexpected': []})
        '2 missing (a, b)'
    """
    return '; '.join(
        f'{len(keys)} {problem} ({shorten(list(keys), 5)})'
        for problem, keys in problems.items()
        if keys
    )


def _fresh(own: Mapping[str, Tensor], key: str) -> Tensor:
    """A parameter as the backbone has initialized it."""
    if own[key].is_meta:
        raise UserValueError(
            f'{key} starts fresh, for which the backbone needs memory: on the meta device, call '
            'to_empty and init_weights before loading'
        )
    return own[key]


def _explain(
    operator: str,
    expected: str,
    given: Collection[str],
    own: Mapping[str, Any],
    backbone: nn.Module,
) -> str:
    """What may be behind a checkpoint that does not fit, if anything is obvious."""
    if any(key.startswith('backbone.') for key in given):
        return ": to take its backbone alone, set prefix='backbone.' in init_cfg"
    if operator == 'plain convolution' and not set(given) & own.keys():
        parts = sorted({key.partition('.')[0] for key in given})
        return f': it has nothing of a backbone, only {shorten(parts) or "no keys"}'
    if stages := different_stages(given, own):
        return f': {stages}'
    if operator == expected:
        return ''
    looks = f': it looks like one of {operator}, not of {expected}'
    if operator == 'plain convolution' and getattr(backbone, 'pretrained_conv', None) is False:
        return f'{looks}; pretrained_conv=True of the backbone makes its operators of convolutions'
    return looks


def _operator_of(state_dict: Mapping[str, Any]) -> str:
    """The operator of a backbone by its keys, for people."""
    parts = {match[1] for match in map(_OPERATOR_PART.search, state_dict) if match}
    operator = next((_OPERATORS[part] for part in _OPERATORS if part in parts), None)
    if operator is None:
        windows = any('w_msa' in key for key in state_dict)
        return 'window attention' if windows else 'plain convolution'
    if operator == 'ELSA':
        return operator
    flattened = any(key.endswith('.context.relative') for key in state_dict)
    return f'{operator} with {"flattened" if flattened else "decomposed"} positions'


def log(message: str) -> None:
    """Log a line, to the logger of the run if there is one."""
    print_log(message, logger='current')
