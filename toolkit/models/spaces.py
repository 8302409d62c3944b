"""Search spaces as data: Optuna distributions by name, and their values as booster parameters.

Names are the booster's own parameters, except two that grow with the square root of the data,
as the columns tried do in a random forest: the columns a tree sees (``columns_over_root``) and
the rows a leaf must hold (``leaf_rows_over_root``). A search varies their multiple of that
root, so a trial means the same for 50 columns and for 40,000. Pooled embeddings are wide and
their columns correlate: many columns and leaves cost ten times as much and win nothing. XGBoost
fills its histograms for all columns, so only shallow trees and larger steps are affordable.

References
----------
Breiman (2001), Random forests, Machine Learning 45.
"""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from math import prod, sqrt
from types import MappingProxyType
from typing import Any, Final

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import BaseTrial

from toolkit.models.libraries import PARAMETERS, find_library

Distribution = FloatDistribution | IntDistribution | CategoricalDistribution
#: Distributions by name; one with a single choice is a fixed value.
Space = Mapping[str, Distribution]
#: The space of a grid: choices alone, single ones for the names that it leaves out.
Grid = Mapping[str, CategoricalDistribution]

_SHARED: Final[Space] = {
    "columns_over_root": FloatDistribution(0.5, 3.0, log=True),
    "leaf_rows_over_root": FloatDistribution(0.1, 1.5, log=True),
}
#: The built-in space of each booster. Samplers draw in this order, so it decides the proposals.
SPACES: Final[Mapping[str, Space]] = MappingProxyType(
    {
        "lightgbm": {
            "learning_rate": FloatDistribution(0.02, 0.125, log=True),
            "num_leaves": IntDistribution(3, 24, log=True),
            **_SHARED,
            "bagging_fraction": FloatDistribution(0.5, 1.0),
            "lambda_l2": FloatDistribution(0.1, 30.0, log=True),
            "extra_trees": CategoricalDistribution((True, False)),
            "max_bin": CategoricalDistribution((31, 63)),
        },
        "xgboost": {
            "eta": FloatDistribution(0.05, 0.2, log=True),
            "max_depth": IntDistribution(2, 3),
            **_SHARED,
            "subsample": FloatDistribution(0.5, 1.0),
            "reg_lambda": FloatDistribution(0.1, 30.0, log=True),
            "max_bin": CategoricalDistribution((31, 63)),
        },
    }
)

#: The booster's own parameter that each multiple of a root stands for.
_ROOTS: Final = {
    "lightgbm": {
        "columns_over_root": "feature_fraction",
        "leaf_rows_over_root": "min_data_in_leaf",
    },
    "xgboost": {
        "columns_over_root": "colsample_bytree",
        "leaf_rows_over_root": "min_child_weight",
    },
}
_LEAST_COLUMNS: Final = 8

_FORMS: Final = (
    "write name = [low, high], {low = .., high = .., log = true}, {choices = [..]}, a list of "
    "other choices, or a single value"
)


def _default_params(kind: str) -> dict[str, Any]:
    """Give the values of the first trial, a strong one."""
    find_library(kind)
    shared = {"columns_over_root": 1.0, "leaf_rows_over_root": 0.5, "max_bin": 63}
    if kind == "xgboost":
        return shared | {"eta": 0.1, "max_depth": 3, "subsample": 0.8, "reg_lambda": 5.0}
    return shared | {
        "learning_rate": 0.04,
        "num_leaves": 7,
        "bagging_fraction": 0.8,
        "lambda_l2": 5.0,
        "extra_trees": True,
    }


def first_params(kind: str, space: Space) -> dict[str, Any]:
    """Give the values of a space that are nearest to the strong default, without fixed ones.

    The default where the space has it, else the nearest end of the range or the first choice;
    the middle of a range without a default.

    Examples
    --------
    >>> first_params("lightgbm", {"num_leaves": IntDistribution(15, 63)})
    {'num_leaves': 15}
    """
    default = _default_params(kind)
    return {
        name: _nearest(distribution, default.get(name))
        for name, distribution in space.items()
        if not distribution.single()
    }


def _nearest(distribution: Distribution, wanted: Any) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return wanted if wanted in distribution.choices else distribution.choices[0]
    low, high, step = distribution.low, distribution.high, distribution.step
    if wanted is None:
        wanted = sqrt(low * high) if distribution.log else (low + high) / 2
    value = min(max(wanted, low), high)
    # Rounding may put the last step of a float range a hair above its end.
    return value if step is None else min(low + round((value - low) / step) * step, high)


def suggest_values(trial: BaseTrial, space: Space) -> dict[str, Any]:
    """Ask a trial for a value of each name, in the order of the space, fixed ones included."""
    values: dict[str, Any] = {}
    for name, each in space.items():
        if not isinstance(each, CategoricalDistribution):
            whole = isinstance(each, IntDistribution)
            suggest: Callable[..., float] = trial.suggest_int if whole else trial.suggest_float
            values[name] = suggest(name, each.low, each.high, step=each.step, log=each.log)
        elif each.single():  # no choice, so that it stays out of the trial's parameters
            values[name] = each.choices[0]
        else:
            values[name] = trial.suggest_categorical(name, each.choices)
    return values


def to_params(
    kind: str, values: Mapping[str, Any], *, n_rows: int, n_features: int
) -> dict[str, Any]:
    """Turn values of a space into the booster's parameters, and ``max_bin`` of its data.

    `n_rows` and `n_features` are those that the booster will be given, after any screening.

    Examples
    --------
    >>> to_params("lightgbm", {"columns_over_root": 1.0}, n_rows=900, n_features=10_000)
    {'feature_fraction': 0.01}
    """
    params: dict[str, Any] = {}
    for name, value in values.items():
        setting = value
        if name == "columns_over_root":
            n_columns = max(_LEAST_COLUMNS, value * sqrt(n_features))
            setting = min(1.0, n_columns / n_features)
        elif name == "leaf_rows_over_root":
            n_leaf_rows = max(1, round(value * sqrt(n_rows)))
            # XGBoost limits sums of hessians, 2 p (1 - p) per row: with probabilities near
            # 1/K that is 1/2 for two classes, 3/8 for four, 7/32 for eight.
            setting = n_leaf_rows / 4 if kind == "xgboost" else n_leaf_rows
        params[_ROOTS[kind].get(name, name)] = setting
        if name == "bagging_fraction" and "bagging_freq" not in values:
            params["bagging_freq"] = 1  # without it LightGBM ignores the fraction
    return params


def make_space(kind: str, table: Mapping[str, Any]) -> Space:
    """Change the built-in space of a booster name by name.

    `table` gives, by parameter, ``max_bin`` or multiple of a root, a range: ``[low, high]`` on
    the scale of the built-in space; ``{"low": .., "high": .., "log": ..}``; ``{"choices":
    [..]}`` or a list that is not two numbers; or a single value, which is fixed. A share such
    as ``feature_fraction`` replaces the multiple of the root. An unknown name (the nearest is
    named) or a value that is no range raises ValueError.

    Examples
    --------
    >>> space = make_space("xgboost", {"max_depth": 5, "eta": [0.01, 0.1]})
    >>> space["max_depth"].choices, space["eta"]
    ((5,), FloatDistribution(high=0.1, log=True, low=0.01, step=None))
    """
    find_library(kind)
    given = {name: _read_distribution(kind, name, value) for name, value in table.items()}
    return _replace(kind, SPACES[kind], given)


def make_grid(kind: str, table: Mapping[str, Any]) -> Grid:
    """Read the space of a grid: parameters, named as in :func:`make_space`, to values.

    Choices stay in the order given; other names are fixed at their value in the first trial. An
    unknown name, or a value that is neither a list nor a single one, raises ValueError.

    Examples
    --------
    >>> grid = make_grid("lightgbm", {"num_leaves": [4, 8]})
    >>> grid["num_leaves"].choices, grid["learning_rate"].choices
    ((4, 8), (0.04,))
    """
    fixed = {n: CategoricalDistribution((value,)) for n, value in _default_params(kind).items()}
    given = {}
    for name, value in table.items():
        _check_name("grid", kind, name)
        values = value if isinstance(value, list | tuple) else [value]
        if not values or any(isinstance(each, list | tuple | dict) for each in values):
            raise _refusal("grid", kind, name, value, "write a list of values, or one value")
        choices = tuple(_number("grid", kind, name, each) for each in values)
        if len(set(choices)) < len(choices):
            raise _refusal("grid", kind, name, value, "name every value once")
        given[name] = CategoricalDistribution(choices)
    return _replace(kind, fixed, given)


def grid_size(grid: Grid) -> int:
    """Count the points of a grid."""
    return prod(len(distribution.choices) for distribution in grid.values())


def _replace(kind: str, space: Space, given: Space) -> dict[str, Any]:
    """Replace distributions by name; a parameter also replaces its multiple of a root."""
    rivals = {root: name for root, name in _ROOTS[kind].items() if name in given}
    for root, name in rivals.items():
        if root in given:
            raise ValueError(
                f"{kind}: {name} and {root} say the same thing twice; leave one of them out."
            )
    return {name: each for name, each in space.items() if name not in rivals} | dict(given)


def _read_distribution(kind: str, name: str, value: Any) -> Distribution:
    _check_name("space", kind, name)
    built_in_log = getattr(SPACES[kind].get(name), "log", False)
    if isinstance(value, dict):
        if set(value) == {"choices"} and isinstance(value["choices"], list | tuple):
            return _read_choices(kind, name, value["choices"])
        if {"low", "high"} <= set(value) <= {"low", "high", "log"}:
            log = value.get("log", built_in_log)
            return _read_range(kind, name, value["low"], value["high"], log=log)
        raise _refusal("space", kind, name, value, _FORMS)
    if isinstance(value, list | tuple):
        if len(value) == 2 and all(type(each) in {int, float} for each in value):
            return _read_range(kind, name, *value, log=built_in_log)
        return _read_choices(kind, name, value)
    return CategoricalDistribution((_number("space", kind, name, value),))


def _read_range(
    kind: str, name: str, low: Any, high: Any, *, log: Any
) -> FloatDistribution | IntDistribution:
    low, high = _number("space", kind, name, low), _number("space", kind, name, high)
    numbers = all(type(each) in {int, float} for each in (low, high))
    given = {"low": low, "high": high, "log": log}
    if not numbers or not isinstance(log, bool) or not low < high:
        raise _refusal("space", kind, name, given, "expected low < high and log true or false")
    if log and low <= 0:
        raise _refusal("space", kind, name, given, "on a log scale low must be above 0")
    if _is_whole(kind, name):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(low, high, log=log)


def _read_choices(kind: str, name: str, choices: Any) -> CategoricalDistribution:
    read = tuple(_number("space", kind, name, each) for each in choices)
    if not read or len(set(read)) < len(read):
        raise _refusal("space", kind, name, list(choices), "name every choice, once")
    return CategoricalDistribution(read)


def _number(table: str, kind: str, name: str, value: Any) -> Any:
    """Make a number of the parameter's own type; words and switches stay as they are."""
    if isinstance(value, bool | str):
        return value
    if not isinstance(value, int | float):
        raise _refusal(table, kind, name, value, _FORMS)
    if not _is_whole(kind, name):
        return float(value)
    if value != int(value):
        raise _refusal(table, kind, name, value, "expected whole numbers")
    return int(value)


def _is_whole(kind: str, name: str) -> bool:
    return name == "max_bin" or PARAMETERS[kind].get(name) is int


def _check_name(table: str, kind: str, name: str) -> None:
    accepted = sorted({*PARAMETERS[kind], "max_bin", *_ROOTS[kind]})
    if name not in accepted:
        near = get_close_matches(name, accepted, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose among {', '.join(accepted)}."
        raise ValueError(f"[{table}.{kind}]: unknown parameter {name!r}; {hint}")


def _refusal(table: str, kind: str, name: str, value: Any, hint: str) -> ValueError:
    return ValueError(f"[{table}.{kind}] {name} = {value!r}: {hint}.")


#: The grid of each booster where none is given, around the strong default; the search crosses
#: it with the candidates for imbalance, screening and statistics.
GRIDS: Final[Mapping[str, Grid]] = MappingProxyType(
    {
        "lightgbm": make_grid(
            "lightgbm", {"learning_rate": [0.02, 0.04, 0.08], "num_leaves": [4, 7, 14]}
        ),
        "xgboost": make_grid("xgboost", {"eta": [0.05, 0.1, 0.2], "max_depth": [2, 3]}),
    }
)


#: Candidates under ``auto``; the first trial takes the first of each.
IMBALANCE_AUTO: Final = ("none", "weights", "smote")
SCREENING_AUTO: Final = ("none", "ftest-2000", "ftest-500")
#: Candidates under ``auto`` for a grid, which is crossed with them.
_IMBALANCE_GRID: Final = ("none", "weights")
_SCREENING_GRID: Final = ("none",)


def list_candidates(
    screening: str, imbalance: str, sampler: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """List the screens and balancings of these options; ``auto`` depends on the sampler."""
    auto: tuple[tuple[str, ...], ...] = (SCREENING_AUTO, IMBALANCE_AUTO)
    if sampler == "grid":
        auto = (_SCREENING_GRID, _IMBALANCE_GRID)
    screens, balancings = (
        known if words == "auto" else tuple(dict.fromkeys(words.split(",")))
        for words, known in zip((screening, imbalance), auto, strict=True)
    )
    return screens, balancings
