"""Training of boosters.

Rows are binned once and serve any number of fits. A fitted booster predicts every class of the
study, in label order, whatever classes its training rows had. The same rows, parameters and
seed give the same model to the byte.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from toolkit.models.checks import check_labels, check_matrix
from toolkit.models.fitted import FittedBooster
from toolkit.models.libraries import (
    PARAMETERS,
    XGBOOST,
    BoosterError,
    TrainingData,
    find_library,
    own_errors,
)

# XGBoost refuses "[", "]" and "<" in a name, LightGBM turns spaces into underscores.
_NAME: Final = re.compile(r"[A-Za-z0-9_]+")
#: Lower bound of the probabilities in the log-loss.
CLIP: Final = 1e-6


def make_training_data(
    kind: str,
    X: ArrayLike,
    y: ArrayLike,
    *,
    n_classes: int,
    names: Sequence[str],
    max_bin: int,
    weights: NDArray[np.float64] | None = None,
    reference: TrainingData | None = None,
    positions: NDArray[np.int64] | None = None,
    device: str = "cpu",
) -> TrainingData:
    """Bin rows, for training or for validation. No fit changes the result.

    Arguments that do not fit one another raise ValueError.

    - X, y: shapes (n_rows, n_features), NaN where missing, and (n_rows,), class positions.
    - names: The features' names: ASCII letters, digits and underscores.
    - max_bin: Bins per feature.
    - weights: shape (n_rows,); Positive weights of the rows.
    - reference: Rows whose bin edges are used; by default those of ``X``, which must then hold
      no rows that a model is tested on.
    - positions: shape (n_rows,); Increasing positions of the rows in the reference; LightGBM
      then copies their bins.
    - device: Device that boosters will train on (:func:`check_device`).
    """
    library = find_library(kind)
    matrix = check_matrix(X)
    if matrix.size == 0:
        raise ValueError(f"Features have shape {matrix.shape}; expected at least one value.")
    labels = check_labels(y, len(matrix), n_classes)
    names = _check_names(names, matrix.shape[1])
    own = (kind, names, max_bin)
    if reference is not None and own != (reference.kind, reference.names, reference.max_bin):
        raise ValueError(
            f"The reference is {reference.kind} data of {len(reference.names)} features in "
            f"{reference.max_bin} bins; expected {kind} data of the same {len(names)} features "
            f"in {max_bin} bins."
        )
    if positions is not None:
        n_reference = 0 if reference is None else len(reference.labels)
        one_each = len(positions) == len(matrix)
        inside = one_each and 0 <= positions[0] <= positions[-1] < n_reference
        # LightGBM takes a subset in its own order: unsorted labels would be swapped silently.
        if not inside or (np.diff(positions) <= 0).any():
            raise ValueError(
                f"The places of {len(matrix)} rows in a reference of {n_reference} are "
                f"{positions}; expected one for each, increasing, all of them rows of the "
                "reference."
            )
    classes, codes = np.unique(labels, return_inverse=True)
    with own_errors(kind):
        handle = library.bin_rows(
            matrix,
            codes,
            names=names,
            max_bin=max_bin,
            weights=weights,
            reference=None if reference is None else reference.handle,
            positions=positions,
            device=device,
        )
    labels.flags.writeable = False
    return TrainingData(
        kind=kind,
        names=names,
        n_classes=n_classes,
        labels=labels,
        classes=tuple(classes.tolist()),
        max_bin=max_bin,
        handle=handle,
        # Compared by identity: only data binned by the same edges may validate a fit.
        edges=object() if reference is None else reference.edges,
        device=device,
    )


def _check_names(names: Sequence[str], n_features: int) -> tuple[str, ...]:
    """Check that both boosters keep the features' names as they are."""
    names = tuple(names)
    if len(names) != n_features:
        raise ValueError(f"There are {len(names)} names for {n_features} features.")
    if odd := [name for name in names if not _NAME.fullmatch(name)]:
        raise ValueError(
            f"Feature names {odd[:5]} are refused or changed by a booster; expected ASCII "
            "letters, digits and underscores."
        )
    if len(set(names)) < n_features:
        twice = next(name for k, name in enumerate(names) if name in names[:k])
        raise ValueError(f"The feature name {twice!r} occurs twice.")
    return names


def fit_booster(
    data: TrainingData,
    params: Mapping[str, Any],
    *,
    n_rounds: int,
    seed: int,
    validation: TrainingData | None = None,
    patience: int | None = None,
    on_round: Callable[[NDArray[np.float64]], None] | None = None,
    n_threads: int = 1,
    release_rows: bool = True,
) -> FittedBooster:
    """Train a booster; it keeps all rounds, also those after the lowest loss.

    Rows of a single class, and settings that are unknown or out of range, raise ValueError.

    - params: The library's own, but for ``max_bin``, which is that of ``data``.
    - n_rounds: Rounds at most; LightGBM ends earlier where no tree can be split any more.
    - seed: From 0 to 2**31 - 1.
    - validation: Rows whose log-loss is followed, binned by the same edges. They may have
      classes that ``data`` lacks.
    - patience: Rounds without a lower validation log-loss before training ends.
    - on_round: Called per round with the validation rows' probabilities, (n_rows, n_classes).
    - release_rows: Whether the model gives up its training rows, at the cost of writing and
      reading it once. One with validation rows keeps them.

    Examples
    --------
    >>> X, y = [[0.0]] * 20 + [[1.0]] * 20, [1] * 20 + [3] * 20
    >>> data = make_training_data("lightgbm", X, y, n_classes=4, names=["a"], max_bin=31)
    >>> booster = fit_booster(data, {"min_data_in_leaf": 5}, n_rounds=20, seed=0)
    >>> booster.predict_proba([[0.0], [1.0]]).argmax(axis=1).tolist()
    [1, 3]
    """
    if len(data.classes) < 2:
        raise ValueError(
            f"All {len(data.labels)} training rows are of class {data.classes[0]}; a booster "
            "needs rows of at least two classes."
        )
    if n_rounds < 1:
        raise ValueError(f"n_rounds must be at least 1, got {n_rounds}.")
    if patience is not None and (patience < 1 or validation is None):
        raise ValueError(
            f"patience must be at least 1 and come with validation rows, got {patience} "
            f"{'without' if validation is None else 'with'} them."
        )
    _check_params(data, params)
    if validation is not None and validation.edges is not data.edges:
        raise ValueError(
            "The validation rows were binned by other edges than the training rows; make them "
            "with reference= the training data, or the same reference."
        )
    curve: list[float] = []
    lowest = 0  # the round

    def follow(proba: NDArray[np.float64]) -> bool:
        nonlocal lowest
        assert validation is not None
        full = np.zeros((len(proba), data.n_classes))  # a copy: the library uses its own again
        full[:, data.classes] = proba
        curve.append(float(row_log_loss(validation.labels, full).mean()))
        if curve[-1] < curve[lowest]:
            lowest = len(curve) - 1
        if on_round is not None:
            on_round(full)
        return patience is not None and len(curve) - 1 - lowest >= patience

    library, content = find_library(data.kind), b""
    with own_errors(data.kind):
        model = library.train(
            data,
            {**params, "num_class": len(data.classes), "max_bin": data.max_bin, "seed": seed},
            n_rounds=n_rounds,
            n_threads=n_threads,
            validation=validation,
            follow=follow,
        )
        if release_rows and validation is None:
            # Through its bytes a model releases its training rows and histograms; one that was
            # followed belongs to a search and ends with its trial.
            content = library.dump(model)
            model = library.load(content)
    return FittedBooster(
        kind=data.kind,
        names=data.names,
        n_classes=data.n_classes,
        classes=data.classes,
        curve=np.array(curve),
        model=model,
        content=content,
    )


def check_device(kind: str, device: str) -> None:
    """Refuse a device that the library's build or the machine does not allow, by ValueError."""
    if device not in ("cpu", "cuda"):
        raise ValueError(f"Unknown device {device!r}; choose 'cpu' or 'cuda'.")
    find_library(kind)
    if problem := _device_problem(kind, device):
        raise ValueError(
            f"{kind} cannot fit on {device} here: {problem}. Install a build with CUDA on a "
            "machine that has a GPU, or use the device cpu."
        )


def _device_problem(kind: str, device: str) -> str | None:
    """Describe why a library cannot train on a device; None where it can."""
    if kind == "xgboost":
        return XGBOOST.find_device_problem(device)
    X, y = np.arange(64, dtype=np.float32)[:, None], np.arange(64) % 2
    try:
        # Only an attempt shows what LightGBM can do.
        with _silent_stderr():
            data = make_training_data(
                kind, X, y, n_classes=2, names=["x"], max_bin=15, device=device
            )
            fit_booster(data, {"min_data_in_leaf": 1}, n_rounds=1, seed=0)
    except BoosterError as error:
        return str(error).removeprefix(f"{kind} stopped: ").rstrip(".")
    return None


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


def row_log_loss(labels: NDArray[np.int64], proba: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the log-loss of every row, in nats, over all classes of the study.

    Probabilities are raised to 1e-6 where lower, then renormalised, so that one certain
    mistake costs 13.8 and not infinity.
    """
    clipped = np.maximum(proba, CLIP)
    of_true = clipped[np.arange(len(labels)), labels] / clipped.sum(axis=1)
    return np.asarray(-np.log(of_true))


def _check_params(data: TrainingData, params: Mapping[str, Any]) -> None:
    accepted = PARAMETERS[data.kind]
    for name in params:
        if name not in accepted:
            near = get_close_matches(name, accepted, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose among {sorted(accepted)}."
            raise ValueError(f"Unknown {data.kind} parameter {name!r}; {hint}")
