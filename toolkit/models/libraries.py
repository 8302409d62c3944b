"""LightGBM and XGBoost behind one set of methods.

Binned rows and models are the library's own objects; this module alone looks inside them.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import lightgbm as lgb
import numpy as np
import xgboost as xgb
from numpy.typing import NDArray


def _typed(kind: type, names: str) -> dict[str, type]:
    return dict.fromkeys(names.split(), kind)


#: Parameters that a caller may set, each under one name: a misspelt one is never ignored.
PARAMETERS: Final[Mapping[str, Mapping[str, type]]] = MappingProxyType(
    {
        "lightgbm": {
            **_typed(float, "bagging_fraction feature_fraction feature_fraction_bynode"),
            **_typed(float, "lambda_l1 lambda_l2 learning_rate max_delta_step path_smooth"),
            **_typed(float, "min_gain_to_split min_sum_hessian_in_leaf"),
            **_typed(int, "bagging_freq max_depth min_data_in_leaf num_leaves"),
            "extra_trees": bool,
        },
        "xgboost": {
            **_typed(float, "colsample_bylevel colsample_bynode colsample_bytree eta gamma"),
            **_typed(float, "max_delta_step min_child_weight reg_alpha reg_lambda subsample"),
            **_typed(int, "max_depth max_leaves"),
            "grow_policy": str,
        },
    }
)

_ERRORS: Final = (lgb.basic.LightGBMError, xgb.core.XGBoostError)
_CLOCK: Final = re.compile(r"^\[\d\d:\d\d:\d\d\] ")

# With few columns per tree and random thresholds, one round may find no split where the next
# does; this many in a row mean that there is nothing left to learn.
_IDLE_ROUNDS: Final = 10


class BoosterError(RuntimeError):
    """The boosting library gave up: a failed trial, not a failed study."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """Binned rows, for any number of fits and validations.

    - labels: shape (n_rows,); Class positions.
    - classes: The classes that the rows have, in order; a booster separates these.
    - max_bin: Bins per feature.
    - handle: The library's own binned matrix.
    - edges: The same object for all data of the same bin edges.
    """

    kind: str
    names: tuple[str, ...]
    n_classes: int
    labels: NDArray[np.int64]
    classes: tuple[int, ...]
    max_bin: int
    handle: Any = field(repr=False)
    edges: object = field(repr=False)
    device: str = "cpu"


@contextmanager
def own_errors(kind: str) -> Iterator[None]:
    """Turn a library's own error into a :class:`BoosterError`."""
    try:
        yield
    except _ERRORS as error:
        # XGBoost puts the time of day before its message and a stack trace behind it; a
        # failed trial's reason is kept, and must be the same in every run.
        reason = _CLOCK.sub("", str(error).strip().split("\n")[0])
        raise BoosterError(f"{kind} stopped: {reason}") from error


#: Rows that find the edges of LightGBM's bins, at most.
_BIN_ROWS: Final = 20_000


class _LightGBM:
    """Binned rows, training, prediction and files by LightGBM."""

    kind, suffix = "lightgbm", ".txt"

    def bin_rows(
        self,
        X: NDArray[np.float32],
        codes: NDArray[np.int64],
        *,
        names: tuple[str, ...],
        max_bin: int,
        weights: NDArray[np.float64] | None,
        reference: Any,
        positions: NDArray[np.int64] | None,
        device: str,
    ) -> lgb.Dataset:
        """Assign every value to its bin; ``positions`` are those in ``reference``."""
        if reference is not None and positions is not None:
            subset = reference.subset(positions.tolist()).construct()
            subset.set_label(codes)
            if weights is not None:
                subset.set_weight(weights)
            return subset  # type: ignore[no-any-return]
        return lgb.Dataset(
            X,
            label=codes,
            weight=weights,
            reference=reference,
            feature_name=list(names),
            categorical_feature=[],
            params={
                "max_bin": max_bin,
                # No column may be dropped: the bins serve trials with any min_data_in_leaf.
                "feature_pre_filter": False,
                # Pooled features are dense: there are no columns to merge.
                "enable_bundle": False,
                "data_random_seed": 0,
                "device_type": device,
                "num_threads": 1,
                "verbosity": -1,
                # Edges of many rows come from a sample, which takes 12 bytes per value. Models
                # name this parameter, so that of few rows stays at its default.
                **({"bin_construct_sample_cnt": _BIN_ROWS} if len(X) > _BIN_ROWS else {}),
            },
        ).construct()

    def train(
        self,
        data: TrainingData,
        params: Mapping[str, Any],
        *,
        n_rounds: int,
        n_threads: int,
        validation: TrainingData | None,
        follow: Callable[[NDArray[np.float64]], bool],
    ) -> lgb.Booster:
        """Boost; ``follow`` gets the validation probabilities of every round and may end it."""
        settings = {
            **params,
            "objective": "multiclass",
            "metric": "none",
            "deterministic": True,
            "device_type": data.device,
            "force_col_wise": True,
            "num_threads": n_threads,
            "verbosity": -1,
        }
        booster = lgb.Booster(settings, data.handle)
        stop = False

        def measure(proba: NDArray[np.float64], _: lgb.Dataset) -> tuple[str, float, bool]:
            nonlocal stop
            stop = follow(proba)
            return "followed", 0.0, False

        if validation is not None:
            booster.add_valid(validation.handle, "validation")
        n_done = idle = 0
        while n_done < n_rounds and idle < _IDLE_ROUNDS and not stop:
            booster.update()
            if booster.current_iteration() == n_done:
                idle += 1
                continue
            n_done, idle = n_done + 1, 0
            if validation is not None:
                booster.eval_valid(feval=measure)
        if n_threads > 1:  # the number would be part of the model's text
            booster.reset_parameter({"num_threads": 1})
        return booster

    def predict(
        self, model: Any, X: NDArray[np.float32], *, margins: bool = False
    ) -> NDArray[np.float64]:
        """Predict the classes trained on: probabilities, or the margins before softmax."""
        return np.asarray(model.predict(X, raw_score=margins, num_threads=1))

    def contributions(self, model: Any, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """Compute path-dependent SHAP values: (n_rows, classes trained on, n_features + 1)."""
        flat = model.predict(X, pred_contrib=True, num_threads=1)
        return np.asarray(flat).reshape(len(X), -1, X.shape[1] + 1)

    def dump(self, model: Any) -> bytes:
        """Write a model in the library's own format."""
        return model.model_to_string(num_iteration=-1).encode()  # type: ignore[no-any-return]

    def load(self, content: bytes) -> lgb.Booster:
        """Read a model from the library's own format."""
        return lgb.Booster(model_str=content.decode())

    def feature_names(self, model: Any) -> tuple[str, ...]:
        """List the names of a model's features."""
        return tuple(model.feature_name())

    def split_gains(self, model: Any) -> NDArray[np.float64]:
        """Sum the gains of the splits on each feature."""
        return np.asarray(model.feature_importance("gain"), dtype=np.float64)


class _XGBoost:
    """The methods of :class:`_LightGBM`, by XGBoost."""

    kind, suffix = "xgboost", ".json"

    def bin_rows(
        self,
        X: NDArray[np.float32],
        codes: NDArray[np.int64],
        *,
        names: tuple[str, ...],
        max_bin: int,
        weights: NDArray[np.float64] | None,
        reference: Any,
        positions: NDArray[np.int64] | None,
        device: str,
    ) -> xgb.QuantileDMatrix:
        # Its binned matrices cannot be sliced, and those made here serve any device.
        return xgb.QuantileDMatrix(
            X,
            label=codes,
            weight=weights,
            ref=reference,
            feature_names=list(names),
            max_bin=max_bin,
            nthread=1,
        )

    def train(
        self,
        data: TrainingData,
        params: Mapping[str, Any],
        *,
        n_rounds: int,
        n_threads: int,
        validation: TrainingData | None,
        follow: Callable[[NDArray[np.float64]], bool],
    ) -> xgb.Booster:
        followed = None if validation is None else validation.handle
        settings = {
            **params,
            "objective": "multi:softprob",
            "tree_method": "hist",
            "device": data.device,
            "nthread": n_threads,
        }
        # Of a matrix in the cache only the new round is predicted.
        cache = [data.handle] if followed is None else [data.handle, followed]
        booster = xgb.Booster(settings, cache)
        for number in range(n_rounds):
            booster.update(data.handle, number)
            if followed is not None and follow(booster.predict(followed).astype(np.float64)):
                break
        return booster

    def predict(
        self, model: Any, X: NDArray[np.float32], *, margins: bool = False
    ) -> NDArray[np.float64]:
        found = model.inplace_predict(X, predict_type="margin" if margins else "value")
        found = np.asarray(found, dtype=np.float64)
        # XGBoost adds up in float32: without this a row's sum is off by 1e-7.
        return found if margins else found / found.sum(axis=1, keepdims=True)

    def contributions(self, model: Any, X: NDArray[np.float32]) -> NDArray[np.float64]:
        rows = xgb.DMatrix(X, feature_names=model.feature_names, nthread=1)
        values = model.predict(rows, pred_contribs=True, strict_shape=True)
        return np.asarray(values, dtype=np.float64)

    def dump(self, model: Any) -> bytes:
        return bytes(model.save_raw("json"))

    def load(self, content: bytes) -> xgb.Booster:
        return xgb.Booster({"nthread": 1}, model_file=bytearray(content))

    def feature_names(self, model: Any) -> tuple[str, ...]:
        return tuple(model.feature_names or ())

    def find_device_problem(self, device: str) -> str | None:
        """Describe why XGBoost cannot train on a device; None where it can."""
        if device == "cpu":
            return None
        if not xgb.build_info().get("USE_CUDA"):
            return "this build has no CUDA"
        # XGBoost would fall back to the CPU without a word.
        config = json.loads(xgb.Booster({"device": device}).save_config())
        used = str(config["learner"]["generic_param"]["device"])
        return None if used.startswith(device) else f"it would take the device {used!r} instead"


LIGHTGBM: Final = _LightGBM()
XGBOOST: Final = _XGBoost()


def find_library(kind: str) -> _LightGBM | _XGBoost:
    """Find a library by its name, and refuse one that does not exist."""
    for library in (LIGHTGBM, XGBOOST):
        if library.kind == kind:
            return library
    raise ValueError(f"Unknown booster {kind!r}; choose among {sorted(PARAMETERS)}.")
