"""A user's own spaces and grids: plain tables, as ``study.toml`` has them, into functions.

A table of ranges changes the built-in space name by name: what is named is chosen from what
the table says, the rest stays as it was. A grid is a whole of its own: what it does not name
stays at the strong default.
"""

from __future__ import annotations

from difflib import get_close_matches
from functools import partial
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from toolkit.models.engines import get_engine
from toolkit.models.spaces import (
    LIGHTGBM_AXES,
    XGBOOST_AXES,
    Axis,
    Range,
    Space,
    default_params,
    lightgbm_space,
    xgboost_space,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    Grid = Mapping[str, tuple[bool | int | float | str, ...]]

#: The grid of each booster where none is given, around the strong default; the search crosses
#: it with what is asked of imbalance, screening and statistics.
GRIDS: Final[Mapping[str, Grid]] = MappingProxyType(
    {
        "lightgbm": {"learning_rate": (0.04, 0.08, 0.16), "num_leaves": (4, 7, 14)},
        "xgboost": {"eta": (0.1, 0.2, 0.4), "max_depth": (2, 3)},
    }
)

_SPACES: Final = {"lightgbm": lightgbm_space, "xgboost": xgboost_space}
_AXES: Final = {"lightgbm": LIGHTGBM_AXES, "xgboost": XGBOOST_AXES}

#: The library's own name, and the multiple of a root that stands for it in the spaces.
_ROOTS: Final = {
    "feature_fraction": "columns_over_root",
    "min_data_in_leaf": "leaf_rows_over_root",
    "colsample_bytree": "columns_over_root",
    "min_child_weight": "leaf_rows_over_root",
}
_WHOLE: Final = frozenset(
    {
        "bagging_freq",
        "max_bin",
        "max_depth",
        "max_leaves",
        "min_data_in_leaf",
        "num_leaves",
    }
)
_FORMS: Final = (
    "write name = [low, high], {low = .., high = .., log = true}, {choices = [..]}, a list of "
    "other choices, or a single value"
)


def make_space(kind: str, table: Mapping[str, Any]) -> Space:
    """Change the built-in space of a booster name by name.

    Parameters
    ----------
    kind : {"lightgbm", "xgboost"}
        The booster.
    table : mapping of str to object
        Parameter to its range: two numbers ``[low, high]``, on the scale that the built-in
        space has it on; ``{"low": .., "high": .., "log": ..}``; ``{"choices": [..]}`` or a
        list that is not two numbers; or a single value, which is fixed. Besides the
        booster's own names there are ``max_bin``, ``columns_over_root`` and
        ``leaf_rows_over_root``; who names ``feature_fraction`` and the like says the share
        itself instead of the multiple of the root.

    Returns
    -------
    Space
        It can be pickled.

    Raises
    ------
    ValueError
        If a name is unknown (the nearest is named) or a value is no range.

    Examples
    --------
    >>> from optuna.trial import FixedTrial
    >>> space = make_space("xgboost", {"max_depth": 5, "eta": [0.01, 0.1]})
    >>> trial = FixedTrial(default_params("xgboost") | {"eta": 0.05})
    >>> params = space(trial, n_rows=900, n_features=100)
    >>> params["max_depth"], params["eta"]
    (5, 0.05)
    """
    given = {name: _read_axis(kind, name, value) for name, value in table.items()}
    return partial(_space(kind), axes=_without_rivals(kind, _AXES[kind], given) | given)


def make_grid(kind: str, table: Mapping[str, Any]) -> Grid:
    """Read a grid: every name with its values.

    Parameters
    ----------
    kind : {"lightgbm", "xgboost"}
        The booster.
    table : mapping of str to object
        Parameter to a list of values or a single one; names as in :func:`make_space`.

    Returns
    -------
    mapping of str to tuple
        Values in the order given.

    Raises
    ------
    ValueError
        If a name is unknown, or a value is neither.

    Examples
    --------
    >>> make_grid("lightgbm", {"num_leaves": [4, 8], "max_bin": 63})
    {'num_leaves': (4, 8), 'max_bin': (63,)}
    """
    grid = {}
    for name, value in table.items():
        _check_name("grid", kind, name)
        values = value if isinstance(value, list | tuple) else [value]
        if not values or any(isinstance(each, list | tuple | dict) for each in values):
            raise _refusal("grid", kind, name, value, "write a list of values, or one value")
        grid[name] = tuple(_number("grid", kind, name, each) for each in values)
        if len(set(grid[name])) < len(grid[name]):
            raise _refusal("grid", kind, name, value, "name every value once")
    _without_rivals(kind, {}, grid)
    return grid


def grid_space(kind: str, grid: Grid) -> Space:
    """Give the space of a grid's points.

    Parameters
    ----------
    kind : {"lightgbm", "xgboost"}
        The booster.
    grid : mapping of str to tuple
        Of :func:`make_grid`.

    Returns
    -------
    Space
        What the grid does not name has its value of :func:`default_params`.
    """
    fixed: dict[str, Axis] = {name: (value,) for name, value in default_params(kind).items()}
    return partial(_space(kind), axes=_without_rivals(kind, fixed, grid) | dict(grid))


def grid_size(grid: Grid) -> int:
    """Count the points of a grid.

    Parameters
    ----------
    grid : mapping of str to tuple
        Values a name.

    Returns
    -------
    int
        The product.

    Examples
    --------
    >>> grid_size(GRIDS["lightgbm"])
    9
    """
    return prod(len(values) for values in grid.values())


def _space(kind: str) -> Any:
    get_engine(kind)  # refuses a booster that does not exist
    return _SPACES[kind]


def _without_rivals(
    kind: str, axes: Mapping[str, Axis], given: Mapping[str, Axis]
) -> dict[str, Axis]:
    """Take out the multiples of a root whose own quantity is given."""
    rivals = {_ROOTS[name] for name in given if name in _ROOTS}
    if twice := sorted(rivals & set(given)):
        own = next(name for name, root in _ROOTS.items() if root == twice[0] and name in given)
        raise ValueError(
            f"{kind}: {own} and {twice[0]} say the same thing twice; leave one of them out."
        )
    return {name: axis for name, axis in axes.items() if name not in rivals}


def _read_axis(kind: str, name: str, value: Any) -> Axis:
    _check_name("space", kind, name)
    if isinstance(value, dict):
        if set(value) == {"choices"} and isinstance(value["choices"], list | tuple):
            return _read_choices(kind, name, value["choices"])
        if {"low", "high"} <= set(value) <= {"low", "high", "log"}:
            log = value.get("log", _is_log(kind, name))
            return _read_range(kind, name, value["low"], value["high"], log=log)
        raise _refusal("space", kind, name, value, _FORMS)
    if isinstance(value, list | tuple):
        if len(value) == 2 and all(type(each) in {int, float} for each in value):
            return _read_range(kind, name, *value, log=_is_log(kind, name))
        return _read_choices(kind, name, value)
    return (_number("space", kind, name, value),)


def _read_range(kind: str, name: str, low: Any, high: Any, *, log: Any) -> Range:
    low, high = _number("space", kind, name, low), _number("space", kind, name, high)
    numbers = all(type(each) in {int, float} for each in (low, high))
    given = {"low": low, "high": high, "log": log}
    if not numbers or not isinstance(log, bool) or not low < high:
        raise _refusal("space", kind, name, given, "expected low < high and log true or false")
    if log and low <= 0:
        raise _refusal("space", kind, name, given, "on a log scale low must be above 0")
    return Range(low, high, log=log)


def _read_choices(kind: str, name: str, choices: Any) -> Axis:
    read = tuple(_number("space", kind, name, each) for each in choices)
    if not read or len(set(read)) < len(read):
        raise _refusal("space", kind, name, list(choices), "name every choice, once")
    return read


def _number(table: str, kind: str, name: str, value: Any) -> Any:
    """Make a number of the parameter's own type; words and switches stay as they are."""
    if isinstance(value, bool | str):
        return value
    if not isinstance(value, int | float):
        raise _refusal(table, kind, name, value, _FORMS)
    if name not in _WHOLE:
        return float(value)
    if value != int(value):
        raise _refusal(table, kind, name, value, "expected whole numbers")
    return int(value)


def _is_log(kind: str, name: str) -> bool:
    axis = _AXES[kind].get(name)
    return isinstance(axis, Range) and axis.log


def _check_name(table: str, kind: str, name: str) -> None:
    known = sorted(
        get_engine(kind).PARAMETERS | {"max_bin", "columns_over_root", "leaf_rows_over_root"}
    )
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose among {', '.join(known)}."
        raise ValueError(f"[{table}.{kind}]: unknown parameter {name!r}; {hint}")


def _refusal(table: str, kind: str, name: str, value: Any, hint: str) -> ValueError:
    return ValueError(f"[{table}.{kind}] {name} = {value!r}: {hint}.")
