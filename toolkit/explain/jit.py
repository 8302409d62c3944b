"""Compile the passes of this room, and keep them on disk where that is possible."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import numba

LANES: Final = 64
"""Rows in a block."""

Array = Any
Number = Any
Function = TypeVar("Function", bound=Callable[..., Any])

# Division follows IEEE 754 instead of raising, or loops could not run in vectors. No fast
# mathematics: the bits must be the same on every processor of an architecture.
_OPTIONS: Final[dict[str, Any]] = {"nogil": True, "error_model": "numpy"}
_njit: Any = numba.njit


def inline(function: Function) -> Function:
    """Compile what only compiled code calls, into its callers."""
    return cast(
        "Function",
        _njit(no_cpython_wrapper=True, forceinline=True, _nrt=False, **_OPTIONS)(function),
    )


def compile_once(function: Function) -> Function:
    """Compile for Python to call, and keep that on disk where a folder can be written."""
    try:
        compiled = _njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # no folder was found
        _warn_not_kept()
        return cast("Function", _njit(**_OPTIONS)(function))

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        try:
            return compiled(*arguments)
        except OSError:  # one was found, but it was full or has been locked since
            _warn_not_kept()
            return compiled(*arguments)

    return cast("Function", call)


def _warn_not_kept() -> None:
    warnings.warn(
        "The compiled explanation cannot be kept on disk, since no folder for it can be "
        "written, and is compiled again in every process. Set NUMBA_CACHE_DIR to a folder that "
        "can be written.",
        RuntimeWarning,
        stacklevel=3,
    )
