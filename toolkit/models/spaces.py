"""What a search may try: functions of a trial, in each library's own parameter names.

Pooled embeddings are wide and their columns correlate, so trees that see few columns are
quick and good at the same time; with many columns a tree and many leaves a fit costs ten times
as much and wins nothing that its noise does not hide. Two quantities therefore grow with the
square root of the data, as the number of columns tried does in a random forest: the columns a
tree sees, and the rows a leaf must hold. What is searched is their multiple of that root, so a
trial means the same for 50 columns and for 40,000, and trials of different widths can be
compared.

A space is any function of that kind. The two here read their axes from a table, which
:mod:`toolkit.models.spaces` lets a user change name by name.

References
----------
Breiman (2001), Random forests, Machine Learning 45.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from math import prod, sqrt
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

from toolkit.models.engines import get_engine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from optuna.trial import BaseTrial

_LEAST_COLUMNS = 8


class Space(Protocol):
    """A function that asks a trial for a booster's parameters."""

    def __call__(self, trial: BaseTrial, *, n_rows: int, n_features: int) -> dict[str, Any]:
        """Suggest parameters.

        Parameters
        ----------
        trial : optuna.trial.BaseTrial
            Where the suggestions come from.
        n_rows : int
            Number of training rows.
        n_features : int
            Number of features that the booster will be given, after any screening.

        Returns
        -------
        dict
            Parameters under the booster's names, ``max_bin`` among them.
        """


@dataclass(frozen=True, slots=True)
class Range:
    """All numbers between two.

    - low, high: The ends, both within; whole numbers only lie between two whole ones.
    - log: Whether equal ratios are equally likely rather than equal differences.
    """

    low: float
    high: float
    log: bool = False


#: An axis is a range, or the values to choose among; a single value is fixed.
Axis = Range | tuple[bool | int | float | str, ...]

LIGHTGBM_AXES: Final[Mapping[str, Axis]] = MappingProxyType(
    {
        "learning_rate": Range(0.04, 0.25, log=True),
        "num_leaves": Range(3, 24, log=True),
        "columns_over_root": Range(0.5, 3.0, log=True),
        "leaf_rows_over_root": Range(0.1, 1.5, log=True),
        "bagging_fraction": Range(0.5, 1.0),
        "lambda_l2": Range(0.1, 30.0, log=True),
        "extra_trees": (True, False),
        "max_bin": (31, 63),
    }
)
XGBOOST_AXES: Final[Mapping[str, Axis]] = MappingProxyType(
    {
        "eta": Range(0.1, 0.4, log=True),
        "max_depth": Range(2, 3),
        "columns_over_root": Range(0.5, 3.0, log=True),
        "leaf_rows_over_root": Range(0.1, 1.5, log=True),
        "subsample": Range(0.5, 1.0),
        "reg_lambda": Range(0.1, 30.0, log=True),
        "max_bin": (31, 63),
    }
)


def lightgbm_space(
    trial: BaseTrial,
    *,
    n_rows: int,
    n_features: int,
    axes: Mapping[str, Axis] = LIGHTGBM_AXES,
) -> dict[str, Any]:
    """Suggest LightGBM parameters.

    Parameters
    ----------
    trial : optuna.trial.BaseTrial
        Where the suggestions come from.
    n_rows : int
        Number of training rows.
    n_features : int
        Number of features that the booster will be given, after any screening.
    axes : mapping of str to Range or tuple
        What each parameter is chosen from; by default :data:`LIGHTGBM_AXES`.

    Returns
    -------
    dict
        Parameters under LightGBM's names. ``max_bin`` belongs to the training data.

    Examples
    --------
    >>> from optuna.trial import FixedTrial
    >>> trial = FixedTrial(default_params("lightgbm"))
    >>> params = lightgbm_space(trial, n_rows=900, n_features=10_000)
    >>> params["feature_fraction"], params["min_data_in_leaf"]
    (0.01, 15)
    """
    params: dict[str, Any] = {}
    for name, value in _suggest(trial, axes).items():
        if name == "columns_over_root":
            params["feature_fraction"] = _share_of_columns(value, n_features)
        elif name == "leaf_rows_over_root":
            params["min_data_in_leaf"] = _rows_in_leaf(value, n_rows)
        else:
            params[name] = value
        if name == "bagging_fraction" and "bagging_freq" not in axes:
            params["bagging_freq"] = 1  # without it LightGBM ignores the fraction
    return params


def xgboost_space(
    trial: BaseTrial,
    *,
    n_rows: int,
    n_features: int,
    axes: Mapping[str, Axis] = XGBOOST_AXES,
) -> dict[str, Any]:
    """Suggest XGBoost parameters.

    Its histograms are filled for all columns whatever share of them a tree may use, so what
    keeps it affordable is shallow trees and larger steps.

    Parameters
    ----------
    trial : optuna.trial.BaseTrial
        Where the suggestions come from.
    n_rows : int
        Number of training rows.
    n_features : int
        Number of features that the booster will be given, after any screening.
    axes : mapping of str to Range or tuple
        What each parameter is chosen from; by default :data:`XGBOOST_AXES`.

    Returns
    -------
    dict
        Parameters under XGBoost's names. ``max_bin`` belongs to the training data.

    Examples
    --------
    >>> from optuna.trial import FixedTrial
    >>> trial = FixedTrial(default_params("xgboost"))
    >>> xgboost_space(trial, n_rows=900, n_features=10_000)["colsample_bytree"]
    0.01
    """
    params: dict[str, Any] = {}
    for name, value in _suggest(trial, axes).items():
        if name == "columns_over_root":
            params["colsample_bytree"] = _share_of_columns(value, n_features)
        elif name == "leaf_rows_over_root":
            # A row's hessian p (1 - p) is near 1/4 while the classes are undecided.
            params["min_child_weight"] = _rows_in_leaf(value, n_rows) / 4
        else:
            params[name] = value
    return params


def default_params(kind: str) -> dict[str, Any]:
    """Give the first trial, a strong one, as the spaces' own suggestions.

    Examples
    --------
    >>> default_params("lightgbm")["num_leaves"]
    7
    """
    shared = {"columns_over_root": 1.0, "leaf_rows_over_root": 0.5, "max_bin": 63}
    if kind == "lightgbm":
        return shared | {
            "learning_rate": 0.08,
            "num_leaves": 7,
            "bagging_fraction": 0.8,
            "lambda_l2": 5.0,
            "extra_trees": True,
        }
    if kind == "xgboost":
        return shared | {"eta": 0.2, "max_depth": 3, "subsample": 0.8, "reg_lambda": 5.0}
    raise ValueError(f"Unknown booster {kind!r}; choose among ['lightgbm', 'xgboost'].")


def first_params(kind: str, space: Space, *, n_rows: int, n_features: int) -> dict[str, Any]:
    """Give the suggestions of a space that come nearest to the strong default.

    Parameters
    ----------
    kind : {"lightgbm", "xgboost"}
        The booster.
    space : Space
        Any space of that booster, a user's own too.
    n_rows, n_features : int
        Size of the training data.

    Returns
    -------
    dict
        What ``enqueue_trial`` takes: a default that the space has, else the nearest end of
        its range or its first choice; the middle of a range that has no default.

    Examples
    --------
    >>> first_params("xgboost", xgboost_space, n_rows=9, n_features=9)["eta"]
    0.2
    >>> space = lambda trial, **_: {"num_leaves": trial.suggest_int("num_leaves", 15, 63)}
    >>> first_params("lightgbm", space, n_rows=9, n_features=9)
    {'num_leaves': 15}
    """
    trial = _NearestTrial(default_params(kind))
    space(trial, n_rows=n_rows, n_features=n_features)  # type: ignore[arg-type]
    return trial.params


class _NearestTrial:
    """A trial that answers with what was wanted, or what comes nearest."""

    def __init__(self, wanted: Mapping[str, Any]) -> None:
        self._wanted = wanted
        self.params: dict[str, Any] = {}

    def suggest_float(
        self,
        name: str,
        low: float,
        high: float,
        *,
        step: float | None = None,
        log: bool = False,
    ) -> float:
        middle = sqrt(low * high) if log else (low + high) / 2
        value = min(max(self._wanted.get(name, middle), low), high)
        if step is not None:
            value = min(low + round((value - low) / step) * step, high)
        self.params[name] = value
        return float(value)

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        value = self.suggest_float(name, low, high, log=log)
        self.params[name] = low + round((value - low) / step) * step
        return int(self.params[name])

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        wanted = self._wanted.get(name)
        self.params[name] = wanted if wanted in choices else choices[0]
        return self.params[name]


def _suggest(trial: BaseTrial, axes: Mapping[str, Axis]) -> dict[str, Any]:
    drawn: dict[str, Any] = {}
    for name, axis in axes.items():
        if isinstance(axis, tuple):
            drawn[name] = axis[0] if len(axis) == 1 else trial.suggest_categorical(name, axis)
        elif isinstance(axis.low, int) and isinstance(axis.high, int):
            drawn[name] = trial.suggest_int(name, axis.low, axis.high, log=axis.log)
        else:
            drawn[name] = trial.suggest_float(name, axis.low, axis.high, log=axis.log)
    return drawn


def _share_of_columns(multiple: float, n_features: int) -> float:
    n_columns = max(_LEAST_COLUMNS, multiple * sqrt(n_features))
    return min(1.0, n_columns / n_features)


def _rows_in_leaf(multiple: float, n_rows: int) -> int:
    return max(1, round(multiple * sqrt(n_rows)))


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
