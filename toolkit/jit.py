"""Compile numeric loops with numba and cache the machine code; importing this loads numba.

Compiling takes seconds, so each function is compiled on first use and kept on disk. If several
processes need the same function at once, one compiles it and the others wait.
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
"""Width of a block: that many dimensions or rows are computed side by side."""

Number = Any  # one value in Python's eyes, a register of values in the compiled loop
Array = Any  # contiguous; rows of LANES values follow one another
Function = TypeVar("Function", bound=Callable[..., Any])

_njit: Any = numba.njit  # whose types know only some of its options

# Division follows IEEE 754 instead of raising, or loops could not run in vectors.
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
# Nothing is allocated, so slices need no reference counts; with `contract` a product and a sum
# may share one instruction, so the last bits can differ between processors.
_CONTRACT: dict[str, Any] = {
    "fastmath": {"contract"},
    "no_cfunc_wrapper": True,
    "_nrt": False,
}
_threads = threading.Lock()
_PATIENCE = 300  # seconds; compiling takes a few, on a crowded machine perhaps fifty


def jit(function: Function, *, inline: bool = False, contract: bool = True) -> Function:
    """Compile a function that only compiled code calls, perhaps into its callers."""
    options = _OPTIONS | (_CONTRACT if contract else {"_nrt": False})
    if inline:
        options |= {"forceinline": True}
    return cast("Function", _njit(no_cpython_wrapper=True, **options)(function))


def jit_cached(function: Function, *, contract: bool = True) -> Function:
    """Compile a function that Python calls, and keep the machine code on disk.

    ``contract=False`` gives the same bits on every processor of an architecture.
    """
    options = _OPTIONS | (_CONTRACT if contract else {})
    # numba finds cached code by name and file, but this file is inlined into it.
    function.__qualname__ = f"{function.__name__}_{_hash_sources(function)}"
    try:
        compiled = _njit(cache=True, **options)(function)
    except RuntimeError:  # numba found no folder for its cache
        _warn_not_cached()
        return cast("Function", _njit(**options)(function))
    ready: set[tuple[object, ...]] = set()

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        signature = tuple(getattr(value, "dtype", type(value)) for value in arguments)
        if signature in ready:
            return compiled(*arguments)
        with _compile_lock(Path(compiled.stats.cache_path) / f"{function.__name__}.lock"):
            try:
                result = compiled(*arguments)
            except OSError:  # the folder is full, or was locked in the meantime
                _warn_not_cached()
                result = compiled(*arguments)
        ready.add(signature)
        return result

    return cast("Function", call)


def _hash_sources(function: Callable[..., Any]) -> str:
    code = hashlib.sha256()
    for path in (Path(__file__), Path(function.__code__.co_filename)):
        code.update(path.read_bytes() if path.is_file() else b"")
    return code.hexdigest()[:12]


@contextmanager
def _compile_lock(path: Path) -> Iterator[None]:
    """Wait while another process compiles the same function, which is then found on disk."""
    lock = FileLock(path, timeout=_PATIENCE)
    with _threads:
        # Where nothing can be locked, several processes compile, which only takes longer.
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


def _warn_not_cached() -> None:
    warnings.warn(
        "Compiled code cannot be kept on disk, since no folder for it can be written, and is "
        "compiled again in every process. Set NUMBA_CACHE_DIR to a folder that can be written.",
        RuntimeWarning,
        stacklevel=3,
    )


@jit
def fill(array: Array, begin: int, end: int, value: Number) -> None:
    """Set rows ``begin`` to ``end`` of LANES values each to one value, in place."""
    rows = array[begin * LANES : end * LANES]
    for i in range(rows.size):
        rows[i] = value


@jit
def copy_results(results: Array, rows: Array, begin: int, width: int, out: Array) -> None:
    """Copy each result of a block to its row of `out`, or nowhere where the row is -1."""
    for k in range(rows.size):
        if rows[k] >= 0:
            line, result = out[rows[k], begin : begin + width], results[k * LANES :]
            for j in range(width):
                line[j] = result[j]
