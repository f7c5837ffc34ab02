"""Triton's interpreter without what takes it most of its time, from when this is imported on."""

from dataclasses import replace
from functools import cache
from inspect import getmembers

from triton.language.core import is_builtin
from triton.runtime import interpreter

patch_builtins = interpreter._patch_builtin


@cache
def any_builtin(package):
    return next((name for name, member in getmembers(package) if is_builtin(member)), None)


def patch_builtins_once(package, *args):
    """Each helper of a kernel would look for functions to replace, which the kernel has done."""
    name = any_builtin(package)
    if name and is_builtin(getattr(package, name)):
        patch_builtins(package, *args)


interpreter._patch_builtin = patch_builtins_once

options = interpreter.interpreter_builder.options
if not options.debug:  # it would compute whether integers overflow, and then assert nothing
    interpreter.interpreter_builder.options = replace(options, sanitize_overflow=False)
