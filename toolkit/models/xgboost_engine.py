"""XGBoost as the boosters of this room need it; see :mod:`toolkit.models.boosters`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xgboost as xgb

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

ERROR: Final = xgb.core.XGBoostError
SUFFIX: Final = ".json"

#: What a caller may set, each by its one name: a slip of the pen is refused, not ignored.
PARAMETERS: Final = frozenset(
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
)


def bin_rows(
    X: NDArray[np.float32],
    codes: NDArray[np.int64],
    *,
    names: tuple[str, ...],
    max_bin: int,
    weights: NDArray[np.float64] | None,
    reference: xgb.QuantileDMatrix | None,
    places: NDArray[np.int64] | None,  # noqa: ARG001  (binned matrices cannot be sliced)
    n_threads: int,
    device: str,  # noqa: ARG001  (both engines take the same; bins made here serve any device)
) -> xgb.QuantileDMatrix:
    """Sort every value into its bin, once."""
    return xgb.QuantileDMatrix(
        X,
        label=codes,
        weight=weights,
        ref=reference,
        feature_names=list(names),
        max_bin=max_bin,
        nthread=n_threads,
    )


def train(
    data: xgb.QuantileDMatrix,
    params: Mapping[str, Any],
    *,
    n_classes: int,
    max_bin: int,
    n_rounds: int,
    seed: int,
    n_threads: int,
    device: str,
    validation: xgb.QuantileDMatrix | None,
    follow: Callable[[NDArray[np.float64]], bool],
) -> xgb.Booster:
    """Boost; ``follow`` gets the validation probabilities of every round and may end it."""
    settings = {
        **params,
        "objective": "multi:softprob",
        "num_class": n_classes,
        "max_bin": max_bin,
        "tree_method": "hist",
        "device": device,
        "seed": seed,
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


def predict(model: xgb.Booster, X: NDArray[np.float32], n_rounds: int) -> NDArray[np.float64]:
    """Predict probabilities of the classes trained on."""
    proba = model.inplace_predict(X, iteration_range=(0, n_rounds)).astype(np.float64)
    # XGBoost adds up in float32: without this a row's sum is off by 1e-7.
    return np.asarray(proba / proba.sum(axis=1, keepdims=True))


def contributions(
    model: xgb.Booster, X: NDArray[np.float32], n_rounds: int
) -> NDArray[np.float64]:
    """Share out the margins: (n_rows, classes trained on, n_features + 1)."""
    rows = xgb.DMatrix(X, feature_names=model.feature_names, nthread=1)
    shares = model.predict(
        rows, pred_contribs=True, iteration_range=(0, n_rounds), strict_shape=True
    )
    return np.asarray(shares, dtype=np.float64)


def dump(model: xgb.Booster) -> bytes:
    """Write a model in XGBoost's JSON format."""
    return bytes(model.save_raw("json"))


def load(text: bytes) -> xgb.Booster:
    """Read a model from XGBoost's JSON format."""
    return xgb.Booster({"nthread": 1}, model_file=bytearray(text))


def names_of(model: xgb.Booster) -> tuple[str, ...]:
    """List the names of a model's features."""
    return tuple(model.feature_names or ())


def count_rounds(model: xgb.Booster) -> int:
    """Count the rounds that a model has."""
    return int(model.num_boosted_rounds())


def device_problem(device: str) -> str | None:
    """Say why nothing can be fitted on a device; XGBoost would go back to the CPU unasked."""
    if device == "cpu":
        return None
    if not xgb.build_info().get("USE_CUDA"):
        return "this build has no CUDA"
    config = json.loads(xgb.Booster({"device": device}).save_config())
    taken = str(config["learner"]["generic_param"]["device"])
    return None if taken.startswith(device) else f"it would take the device {taken!r} instead"
