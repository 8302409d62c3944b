"""LightGBM and XGBoost behind one set of functions, whose ``kind`` names the library.

Binned rows and models are the library's own objects; this module alone looks inside them.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import lightgbm as lgb
import numpy as np
import xgboost as xgb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

#: Parameters that a caller may set, each under one name: a misspelt one is never ignored.
PARAMETERS: Final = MappingProxyType(
    {
        "lightgbm": frozenset(
            {
                "bagging_fraction",
                "bagging_freq",
                "extra_trees",
                "feature_fraction",
                "feature_fraction_bynode",
                "lambda_l1",
                "lambda_l2",
                "learning_rate",
                "max_delta_step",
                "max_depth",
                "min_data_in_leaf",
                "min_gain_to_split",
                "min_sum_hessian_in_leaf",
                "num_leaves",
                "path_smooth",
            }
        ),
        "xgboost": frozenset(
            {
                "colsample_bylevel",
                "colsample_bynode",
                "colsample_bytree",
                "eta",
                "gamma",
                "grow_policy",
                "max_delta_step",
                "max_depth",
                "max_leaves",
                "min_child_weight",
                "reg_alpha",
                "reg_lambda",
                "subsample",
            }
        ),
    }
)

#: File endings of the libraries' own formats.
SUFFIX: Final = MappingProxyType({"lightgbm": ".txt", "xgboost": ".json"})

_ERRORS: Final = (lgb.basic.LightGBMError, xgb.core.XGBoostError)
_CLOCK: Final = re.compile(r"^\[\d\d:\d\d:\d\d\] ")

# With few columns per tree and random thresholds, one round may find no split where the next
# does; this many in a row mean that there is nothing left to learn.
_IDLE_ROUNDS: Final = 10


class BoosterError(RuntimeError):
    """The boosting library gave up: a failed trial, not a failed study."""


def check_kind(kind: str) -> None:
    """Refuse a library that does not exist."""
    if kind not in PARAMETERS:
        raise ValueError(f"Unknown booster {kind!r}; choose among {sorted(PARAMETERS)}.")


@contextmanager
def library_errors(kind: str) -> Iterator[None]:
    """Turn a library's own error into a :class:`BoosterError`."""
    try:
        yield
    except _ERRORS as error:
        # XGBoost puts the time of day before its message and a stack trace behind it; a
        # failed trial's reason is kept, and must be the same in every run.
        raise BoosterError(f"{kind} stopped: {_CLOCK.sub('', _first_line(error))}") from error


def bin_rows(
    kind: str,
    X: NDArray[np.float32],
    codes: NDArray[np.int64],
    *,
    names: tuple[str, ...],
    max_bin: int,
    weights: NDArray[np.float64] | None = None,
    reference: Any = None,
    positions: NDArray[np.int64] | None = None,
    n_threads: int = 1,
    device: str = "cpu",
) -> Any:
    """Assign every value to its bin; ``positions`` are those of the rows in the reference."""
    if kind == "xgboost":
        # Its binned matrices cannot be sliced, and those made here serve any device.
        return xgb.QuantileDMatrix(
            X,
            label=codes,
            weight=weights,
            ref=reference,
            feature_names=list(names),
            max_bin=max_bin,
            nthread=n_threads,
        )
    if reference is not None and positions is not None:
        subset = reference.subset(positions.tolist()).construct()
        subset.set_label(codes)
        if weights is not None:
            subset.set_weight(weights)
        return subset
    return lgb.Dataset(
        X,
        label=codes,
        weight=weights,
        reference=reference,
        feature_name=list(names),
        categorical_feature=[],
        params={
            "max_bin": max_bin,
            # The bins serve trials with any min_data_in_leaf: no column may be dropped for one.
            "feature_pre_filter": False,
            # Pooled features are dense: looking for columns to merge takes time and finds none.
            "enable_bundle": False,
            "data_random_seed": 0,
            "device_type": device,
            "num_threads": n_threads,
            "verbosity": -1,
        },
    ).construct()


def train(
    kind: str,
    data: Any,
    params: Mapping[str, Any],
    *,
    n_classes: int,
    max_bin: int,
    n_rounds: int,
    seed: int,
    n_threads: int,
    device: str,
    validation: Any,
    follow: Callable[[NDArray[np.float64]], bool],
) -> Any:
    """Boost; ``follow`` gets the validation probabilities of every round and may end it."""
    settings = {**params, "num_class": n_classes, "max_bin": max_bin, "seed": seed}
    if kind == "lightgbm":
        settings |= {
            "objective": "multiclass",
            "metric": "none",
            "deterministic": True,
            "device_type": device,
            "force_col_wise": True,
            "num_threads": n_threads,
            "verbosity": -1,
        }
        return _boost_lightgbm(settings, data, n_rounds, validation, follow)
    settings |= {
        "objective": "multi:softprob",
        "tree_method": "hist",
        "device": device,
        "nthread": n_threads,
    }
    cache = [data] if validation is None else [data, validation]
    booster = xgb.Booster(settings, cache)
    for number in range(n_rounds):
        booster.update(data, number)
        # Of a matrix in the cache only the new round is predicted.
        if validation is not None and follow(booster.predict(validation).astype(np.float64)):
            break
    return booster


def _boost_lightgbm(
    settings: dict[str, Any],
    data: lgb.Dataset,
    n_rounds: int,
    validation: lgb.Dataset | None,
    follow: Callable[[NDArray[np.float64]], bool],
) -> lgb.Booster:
    booster = lgb.Booster(settings, data)
    stop = False

    def measure(proba: NDArray[np.float64], _: lgb.Dataset) -> tuple[str, float, bool]:
        nonlocal stop
        stop = follow(proba)
        return "followed", 0.0, False

    if validation is not None:
        booster.add_valid(validation, "validation")
    n_done = idle = 0
    while n_done < n_rounds and idle < _IDLE_ROUNDS and not stop:
        booster.update()
        if booster.current_iteration() == n_done:
            idle += 1
            continue
        n_done, idle = n_done + 1, 0
        if validation is not None:
            booster.eval_valid(feval=measure)
    return booster


def predict(
    kind: str, model: Any, X: NDArray[np.float32], n_rounds: int
) -> NDArray[np.float64]:
    """Predict probabilities of the classes trained on."""
    if kind == "lightgbm":
        return np.asarray(model.predict(X, num_iteration=n_rounds, num_threads=1))
    proba = model.inplace_predict(X, iteration_range=(0, n_rounds)).astype(np.float64)
    # XGBoost adds up in float32: without this a row's sum is off by 1e-7.
    return np.asarray(proba / proba.sum(axis=1, keepdims=True))


def contributions(
    kind: str, model: Any, X: NDArray[np.float32], n_rounds: int
) -> NDArray[np.float64]:
    """Compute path-dependent SHAP values: (n_rows, classes trained on, n_features + 1)."""
    if kind == "lightgbm":
        flat = model.predict(X, num_iteration=n_rounds, pred_contrib=True, num_threads=1)
        return np.asarray(flat).reshape(len(X), -1, X.shape[1] + 1)
    rows = xgb.DMatrix(X, feature_names=model.feature_names, nthread=1)
    values = model.predict(
        rows, pred_contribs=True, iteration_range=(0, n_rounds), strict_shape=True
    )
    return np.asarray(values, dtype=np.float64)


def dump(kind: str, model: Any) -> bytes:
    """Write a model in the library's own format: LightGBM's text or XGBoost's JSON."""
    if kind == "lightgbm":
        return model.model_to_string(num_iteration=-1).encode()  # type: ignore[no-any-return]
    return bytes(model.save_raw("json"))


def load(kind: str, content: bytes) -> Any:
    """Read a model from the library's own format."""
    if kind == "lightgbm":
        return lgb.Booster(model_str=content.decode())
    return xgb.Booster({"nthread": 1}, model_file=bytearray(content))


def feature_names(kind: str, model: Any) -> tuple[str, ...]:
    """List the names of a model's features."""
    return tuple(model.feature_name() if kind == "lightgbm" else model.feature_names or ())


def count_rounds(kind: str, model: Any) -> int:
    """Count the boosting rounds of a model."""
    if kind == "lightgbm":
        return int(model.current_iteration())
    return int(model.num_boosted_rounds())


def split_gains(model: lgb.Booster) -> NDArray[np.float64]:
    """Sum the gains of LightGBM's splits on each feature."""
    return np.asarray(model.feature_importance("gain"), dtype=np.float64)


def device_problem(kind: str, device: str) -> str | None:
    """Describe why a library cannot train on a device; None where it can."""
    if kind == "lightgbm":
        # Only an attempt shows what LightGBM can do.
        with _silent_stderr():
            return _try_lightgbm(device)
    if device == "cpu":
        return None
    if not xgb.build_info().get("USE_CUDA"):
        return "this build has no CUDA"
    # XGBoost would fall back to the CPU without a word.
    config = json.loads(xgb.Booster({"device": device}).save_config())
    used = str(config["learner"]["generic_param"]["device"])
    return None if used.startswith(device) else f"it would take the device {used!r} instead"


def _try_lightgbm(device: str) -> str | None:
    X, codes = np.arange(64, dtype=np.float32)[:, None], np.arange(64) % 2
    try:
        data = bin_rows("lightgbm", X, codes, names=("x",), max_bin=15, device=device)
        train(
            "lightgbm",
            data,
            {"min_data_in_leaf": 1},
            n_classes=2,
            max_bin=15,
            n_rounds=1,
            seed=0,
            n_threads=1,
            device=device,
            validation=None,
            follow=lambda _: False,
        )
    except lgb.basic.LightGBMError as error:
        return _first_line(error).rstrip(".")
    return None


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Keep the library's C code from printing the message that its error holds as well."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
