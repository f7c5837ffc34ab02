_base_ = ['mmdet::_base_/default_runtime.py', './lesa.py']

default_hooks = _base_.lesa_hooks
