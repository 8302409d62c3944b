"""The two boosting libraries, by name, and the one error that both may end in."""

from __future__ import annotations

import re
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from toolkit.models import lightgbm_engine, xgboost_engine

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import ModuleType

_ENGINES: Final[Mapping[str, ModuleType]] = MappingProxyType(
    {"lightgbm": lightgbm_engine, "xgboost": xgboost_engine}
)


_CLOCK: Final = re.compile(r"^\[\d\d:\d\d:\d\d\] ")


class BoosterError(RuntimeError):
    """The boosting library gave up: a failed trial, not a failed study."""


def get_engine(kind: str) -> ModuleType:
    """Look up what speaks to a library: modules with the same functions.

    Parameters
    ----------
    kind : {"lightgbm", "xgboost"}
        The library.

    Returns
    -------
    module
        With ``bin_rows``, ``train``, ``predict``, ``contributions``, ``dump``, ``load``,
        ``names_of``, ``count_rounds``, ``device_problem`` and the constants ``ERROR``,
        ``PARAMETERS``, ``SUFFIX``.

    Raises
    ------
    ValueError
        If there is no such booster.
    """
    if kind not in _ENGINES:
        raise ValueError(f"Unknown booster {kind!r}; choose among {sorted(_ENGINES)}.")
    return _ENGINES[kind]


@contextmanager
def library_errors(kind: str) -> Iterator[None]:
    """Turn a library's own error into a :class:`BoosterError`."""
    try:
        yield
    except get_engine(kind).ERROR as error:
        # XGBoost puts the time of day before its message and a stack trace behind it; a
        # failed trial's reason is kept, and must be the same in every run.
        reason = _CLOCK.sub("", str(error).strip().split("\n")[0])
        raise BoosterError(f"{kind} stopped: {reason}") from error
