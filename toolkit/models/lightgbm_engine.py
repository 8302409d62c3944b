"""LightGBM as the boosters of this room need it; see :mod:`toolkit.models.boosters`."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import lightgbm as lgb
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

ERROR: Final = lgb.basic.LightGBMError
SUFFIX: Final = ".txt"

#: What a caller may set, each by its one name: a slip of the pen is refused, not ignored.
PARAMETERS: Final = frozenset(
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
)

# With few columns a tree and random thresholds, one round may find no split where the next
# does; this many in a row mean that there is nothing left to learn.
_IDLE_ROUNDS: Final = 10


def bin_rows(
    X: NDArray[np.float32],
    codes: NDArray[np.int64],
    *,
    names: tuple[str, ...],
    max_bin: int,
    weights: NDArray[np.float64] | None,
    reference: lgb.Dataset | None,
    places: NDArray[np.int64] | None,
    n_threads: int,
    device: str,
) -> lgb.Dataset:
    """Sort every value into its bin, once; rows of the reference have theirs already."""
    if reference is not None and places is not None:
        taken = reference.subset(places.tolist()).construct()
        taken.set_label(codes)
        if weights is not None:
            taken.set_weight(weights)
        return taken
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
    data: lgb.Dataset,
    params: Mapping[str, Any],
    *,
    n_classes: int,
    max_bin: int,
    n_rounds: int,
    seed: int,
    n_threads: int,
    device: str,
    validation: lgb.Dataset | None,
    follow: Callable[[NDArray[np.float64]], bool],
) -> lgb.Booster:
    """Boost; ``follow`` gets the validation probabilities of every round and may end it."""
    settings = {
        **params,
        "objective": "multiclass",
        "num_class": n_classes,
        "max_bin": max_bin,
        "metric": "none",
        "seed": seed,
        "deterministic": True,
        "device_type": device,
        "force_col_wise": True,
        "num_threads": n_threads,
        "verbosity": -1,
    }
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


def predict(model: lgb.Booster, X: NDArray[np.float32], n_rounds: int) -> NDArray[np.float64]:
    """Predict probabilities of the classes trained on."""
    return np.asarray(model.predict(X, num_iteration=n_rounds, num_threads=1))


def contributions(
    model: lgb.Booster, X: NDArray[np.float32], n_rounds: int
) -> NDArray[np.float64]:
    """Share out the margins: (n_rows, classes trained on, n_features + 1)."""
    flat = model.predict(X, num_iteration=n_rounds, pred_contrib=True, num_threads=1)
    return np.asarray(flat).reshape(len(X), -1, X.shape[1] + 1)


def dump(model: lgb.Booster) -> bytes:
    """Write a model in LightGBM's text format."""
    return model.model_to_string(num_iteration=-1).encode()


def load(text: bytes) -> lgb.Booster:
    """Read a model from LightGBM's text format."""
    return lgb.Booster(model_str=text.decode())


def names_of(model: lgb.Booster) -> tuple[str, ...]:
    """List the names of a model's features."""
    return tuple(model.feature_name())


def count_rounds(model: lgb.Booster) -> int:
    """Count the rounds that a model has."""
    return int(model.current_iteration())


def gains(model: lgb.Booster) -> NDArray[np.float64]:
    """Add up what the splits on each feature gained."""
    return np.asarray(model.feature_importance("gain"), dtype=np.float64)


def device_problem(device: str) -> str | None:
    """Say why nothing can be fitted on a device, by fitting next to nothing there."""
    X, codes = np.arange(64, dtype=np.float32)[:, None], np.arange(64) % 2
    with _silent_stderr():
        return _try_out(device, X, codes)


def _try_out(device: str, X: NDArray[np.float32], codes: NDArray[np.int64]) -> str | None:
    try:
        data = bin_rows(
            X,
            codes,
            names=("x",),
            max_bin=15,
            weights=None,
            reference=None,
            places=None,
            n_threads=1,
            device=device,
        )
        train(
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
    except ERROR as error:
        return str(error).strip().split("\n")[0].rstrip(".")
    return None


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Keep the library from writing past Python what its error says as well."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
