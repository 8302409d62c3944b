"""How the pooling kernels are compiled; importing this file imports the compiler.

Compiling takes seconds, so it is done once a machine and kept on disk, kernel by kernel: one
that nobody asks for is never compiled, and of several processes that need the same one at the
same time the first compiles it while the others wait.
"""

import functools
import gc
import hashlib
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from filelock import FileLock

LANES = 64
"""Dimensions in a block: they stand side by side and are worked on at once."""

Number = Any  # one value in Python's eyes, a register of values in the compiled loop
Array = Any  # contiguous; rows of LANES values stand one after the other
Function = TypeVar("Function", bound=Callable[..., Any])

_njit: Any = numba.njit  # whose types know only some of its options

# Division follows IEEE 754 instead of raising, or loops could not run in vectors; nothing is
# allocated, so that slices need not be counted; a product may be added in one instruction.
_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"contract"},
    "no_cfunc_wrapper": True,
    "_nrt": False,
}
_threads = threading.Lock()
_PATIENCE = 300  # seconds; compiling takes a few, on a crowded machine perhaps fifty


def _hash_code() -> str:
    code = hashlib.sha256()
    for name in ("course.py", "lanes.py", "mixing.py", "moments.py", "sorting.py"):
        code.update(Path(__file__).with_name(name).read_bytes())
    return code.hexdigest()[:12]


# What is kept on disk is found again by the name of the function and the date of its file;
# but it holds what other files say, too.
_CODE = _hash_code()


def part(function: Function) -> Function:
    """Compile what only compiled code calls.

    Parameters
    ----------
    function : callable
        Plain loops over arrays.

    Returns
    -------
    callable
        The same, compiled where it is first called from.
    """
    return cast("Function", _njit(no_cpython_wrapper=True, **_OPTIONS)(function))


def inline(function: Function) -> Function:
    """Compile what is part of the body of a loop.

    Parameters
    ----------
    function : callable
        Arithmetic on a few numbers.

    Returns
    -------
    callable
        The same, compiled into whatever calls it.
    """
    return cast(
        "Function", _njit(no_cpython_wrapper=True, forceinline=True, **_OPTIONS)(function)
    )


def kernel(function: Function) -> Function:
    """Compile for Python to call, and keep that on disk where a folder can be written.

    Parameters
    ----------
    function : callable
        Plain loops over arrays.

    Returns
    -------
    callable
        The same, compiled with the first call for each type of arguments.
    """
    function.__qualname__ = f"{function.__name__}_{_CODE}"
    try:
        compiled = _njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # no folder was found
        _warn_not_kept()
        return cast("Function", _njit(**_OPTIONS)(function))
    ready: set[str] = set()

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        kind = arguments[0].dtype.char
        if kind in ready:
            return compiled(*arguments)
        with _turn(Path(compiled.stats.cache_path) / f"{function.__name__}.lock"):
            try:
                result = compiled(*arguments)
            except OSError:  # a folder was found, but it was full or has been locked since
                _warn_not_kept()
                result = compiled(*arguments)
        ready.add(kind)
        return result

    return cast("Function", call)


@contextmanager
def _turn(path: Path) -> Iterator[None]:
    """Wait while another process compiles the same kernel, which is then found on disk."""
    lock = FileLock(path, timeout=_PATIENCE)
    with _threads:
        # Without turns, where nothing can be locked, it only takes longer.
        with suppress(OSError):
            lock.acquire()
        # The compiler makes objects by the million; looking for cycles takes a tenth of it.
        collecting = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if collecting:
                gc.enable()
            lock.release(force=True)


def _warn_not_kept() -> None:
    warnings.warn(
        "The compiled pooling cannot be kept on disk, since no folder for it can be written, "
        "and is compiled again in every process. Set NUMBA_CACHE_DIR to a folder that can be "
        "written.",
        RuntimeWarning,
        stacklevel=3,
    )


@part
def fill(array: Array, begin: int, end: int, value: Number) -> None:
    """Set rows to one value.

    Parameters
    ----------
    array : ndarray of shape (n_rows * LANES,)
        Changed in place.
    begin, end : int
        Rows.
    value : float
        The value.
    """
    rows = array[begin * LANES : end * LANES]
    for i in range(rows.size):
        rows[i] = value
