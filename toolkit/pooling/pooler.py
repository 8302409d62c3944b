"""Pool one sequence, or many as a step of a scikit-learn pipeline."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from toolkit.data.sequences import as_array, as_floats, read_sequence
from toolkit.pooling.statistics import (
    VALUE,
    FeatureName,
    Frames,
    FramesPolicy,
    NonFiniteError,
    check_frames_policy,
    clean_frames,
    compute_statistics,
    resolve_statistics,
)


def pool_frames(frames: ArrayLike, statistics: Sequence[str]) -> NDArray[np.float32]:
    """Summarise the frames of one sequence, each dimension on its own.

    Parameters
    ----------
    frames : array-like of shape (n_frames, n_dims)
        At least one frame of numbers, all finite, of any numeric type and memory order.
    statistics : sequence of str
        Names of statistics.

    Returns
    -------
    ndarray of shape (len(statistics), n_dims)
        One row per statistic.

    Raises
    ------
    ValueError
        If the frames have another shape or are not finite, or if a result is not finite in
        float32.

    Examples
    --------
    >>> pool_frames([[1, 10], [2, 10], [6, 10]], ["mean", "max", "delta_mean_abs"]).tolist()
    [[3.0, 10.0], [6.0, 10.0], [2.5, 0.0]]
    """
    numbers = _as_frames(frames)
    rows = np.empty((len(statistics), numbers.shape[1]), dtype=np.float32)
    from toolkit.pooling.kernels import pool_compiled  # noqa: PLC0415  (loads the compiler)

    # A sum may overflow where the result does not: then the plain definitions decide.
    if not (pool_compiled(numbers, tuple(statistics), rows) and np.isfinite(rows).all()):
        clean_frames(numbers)
        rows[:] = _narrow(compute_statistics(numbers, statistics), statistics)
    return rows


def pool_sequence(
    sequence: NDArray[np.floating[Any]],
    statistics: Sequence[str],
    frames: FramesPolicy,
    missing: Literal["refuse", "allow"],
) -> tuple[NDArray[np.float32] | None, dict[str, Any]]:
    """Pool a sequence to a row, and count its frames and what was not finite.

    The row is None where no finite frame is left and that is allowed. A sequence without a time
    axis is its own row.
    """
    if sequence.ndim == 1:
        return _take_values(sequence, missing)
    try:
        row = pool_frames(sequence, statistics).reshape(-1)
        return row, {"n_frames": len(sequence)}
    except NonFiniteError:
        if frames == missing == "refuse":
            raise
    clean = clean_frames(sequence, frames, missing)
    if len(clean.frames) == 0:
        if missing == "refuse":
            raise NonFiniteError("no finite frame is left.")
        return None, {}
    alive = np.isfinite(clean.frames[0])
    rows = np.full((len(statistics), len(alive)), np.nan, dtype=np.float32)
    rows[:, alive] = pool_frames(clean.frames[:, alive], statistics)
    return rows.reshape(-1), {
        "n_frames": len(clean.frames),
        "frames_dropped": clean.n_dropped,
        "frames_interpolated": clean.n_interpolated,
        "dimensions_missing": int((~alive).sum()),
    }


def _take_values(
    sequence: NDArray[np.floating[Any]], missing: str
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Take a sequence without a time axis as it is."""
    finite = np.isfinite(sequence)
    if not finite.all() and missing == "refuse":
        dimension = int(np.argmin(finite))
        raise NonFiniteError(
            f"dimension {dimension} is {sequence[dimension]} (values that are not finite: "
            f"{(~finite).sum()} of {finite.size}); expected finite numbers. Write the features "
            "again, or allow missing ones."
        )
    filled = np.where(finite, sequence, 0).astype(np.float64)
    row: NDArray[np.float32] = _narrow(filled[None], (VALUE,))[0]
    row[~finite] = np.nan
    return row, {"values_missing": int((~finite).sum())}


def _as_frames(frames: ArrayLike) -> NDArray[np.floating[Any]]:
    """Check frames of any numeric type and memory order, and bring them to floats."""
    array = as_array(frames)
    Frames.check_shape(array)
    if array.dtype.kind not in "fiu" or array.dtype.itemsize > 8:
        raise ValueError(f"Frames are of type {array.dtype}; expected integers or floats.")
    return as_floats(array)


def _narrow(rows: NDArray[np.float64], statistics: Sequence[str]) -> NDArray[np.float32]:
    """Round results of shape (n_statistics, n_dims) to float32, refusing those beyond it."""
    with np.errstate(over="ignore"):
        narrowed = rows.astype(np.float32)
    finite = np.isfinite(narrowed)
    if not finite.all():
        row, dimension = np.argwhere(~finite)[0]
        raise ValueError(
            f"statistic {statistics[row]!r} of dimension {dimension} is "
            f"{rows[row, dimension]:.3g}; expected a finite number that 32 bits hold "
            "(magnitudes up to 3.4e+38). Bring the features to a smaller unit."
        )
    return narrowed


class SequencePooler(TransformerMixin, BaseEstimator):
    """Summarise each sequence by statistics taken over its frames.

    Every dimension is pooled on its own, so a sequence of shape (n_frames, n_dims) becomes one
    row of ``len(statistics) * n_dims`` features, whatever its length. Nothing is learned but
    the width: pooling before or inside the folds gives the same rows. Sequences without a time
    axis, of shape (n_dims,), pass as they are.

    A sequence is an array, or the path of a feature file. A missing one (None or NaN) becomes a
    row of NaN.

    Parameters
    ----------
    modality : str, default="sequence"
        First part of every output name, for example ``"visual"``.
    statistics : str or sequence of str, default="rich"
        A preset or names of statistics, in output order.
    frames : {"refuse", "drop", "interpolate"}, default="refuse"
        Treatment of frames that hold NaN or infinity.

    Attributes
    ----------
    n_dims_ : int
        Width of the frames seen during ``fit``.
    has_time_ : bool
        Whether the sequences seen during ``fit`` had a time axis.
    statistics_ : tuple of str
        Statistics in output order; ``("value",)`` without a time axis.

    Examples
    --------
    >>> short, long = np.zeros((2, 3)), np.ones((5, 3))
    >>> pooler = SequencePooler("acoustic", statistics=("mean", "max"))
    >>> pooler.fit_transform([short, long]).shape
    (2, 6)
    >>> pooler.get_feature_names_out()[:2].tolist()
    ['acoustic__mean__0000', 'acoustic__mean__0001']
    """

    def __init__(
        self,
        modality: str = "sequence",
        *,
        statistics: str | Sequence[str] = "rich",
        frames: FramesPolicy = "refuse",
    ) -> None:
        self.modality = modality
        self.statistics = statistics
        self.frames = frames

    def fit(self, X: Any, y: object = None) -> Self:
        """Learn the width of the frames.

        Parameters
        ----------
        X : sequence, Series or DataFrame of one column
            Arrays of shape (n_frames, n_dims), or all of shape (n_dims,); paths; or None.
        y : object, optional
            Not used; pipelines pass it.

        Returns
        -------
        SequencePooler
            This object.
        """
        check_frames_policy(self.frames)
        names = resolve_statistics(self.statistics)
        if len(X) == 0:
            raise ValueError("Cannot fit on no sequences: X is empty.")
        position, first = next(self._read(X), (0, None))
        if first is None:
            raise ValueError(
                f"All {len(X):,} sequences of modality {self.modality!r} are missing."
            )
        if first.ndim not in {1, 2} or 0 in first.shape:
            raise ValueError(
                f"Sequence {position} of modality {self.modality!r} has shape {first.shape}; "
                "expected (n_frames, n_dims) or (n_dims,) with at least one of each."
            )
        self.has_time_ = first.ndim == 2
        self.n_dims_ = int(first.shape[-1])
        self.statistics_ = names if self.has_time_ else (VALUE,)
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Pool every sequence.

        Parameters
        ----------
        X : sequence, Series or DataFrame of one column
            As for ``fit``, of the same width.

        Returns
        -------
        ndarray of shape (n_sequences, n_statistics * n_dims)
            One row per sequence; NaN where it is missing.

        Raises
        ------
        ValueError
            If a sequence has another shape, is not finite where that is refused, or has
            statistics beyond float32; the message names its position.
        """
        check_is_fitted(self)
        shape = (len(X), len(self.statistics_) * self.n_dims_)
        rows = np.full(shape, np.nan, dtype=np.float32)
        for position, sequence in self._read(X):
            with self._name(position):
                rows[position] = self._pool(sequence)
        return rows

    def _read(self, X: Any) -> Iterator[tuple[int, NDArray[Any]]]:
        """Give position and array of each sequence that is not missing."""
        if getattr(X, "ndim", 1) == 2 and hasattr(X, "iloc"):
            if X.shape[1] != 1:
                raise ValueError(
                    f"X has {X.shape[1]} columns; expected one column of sequences: pool each "
                    "with a ColumnTransformer."
                )
            X = X.iloc[:, 0]
        for position, sequence in enumerate(X):
            if sequence is None or (isinstance(sequence, float) and np.isnan(sequence)):
                continue
            with self._name(position):
                is_path = isinstance(sequence, str | Path)
                array = read_sequence(Path(sequence)) if is_path else as_array(sequence)
            yield position, array

    @contextmanager
    def _name(self, position: int) -> Iterator[None]:
        """Begin errors with the position of the sequence."""
        try:
            yield
        except ValueError as error:
            raise ValueError(
                f"Sequence {position} of modality {self.modality!r}: {error}"
            ) from error

    def _pool(self, sequence: NDArray[Any]) -> NDArray[np.float32] | None:
        expected = "(n_frames >= 1, {})" if self.has_time_ else "({},)"
        frames = sequence if self.has_time_ else sequence[None]
        if frames.ndim != 2 or frames.shape[1] != self.n_dims_ or len(frames) == 0:
            raise ValueError(
                f"shape is {sequence.shape}; expected {expected.format(self.n_dims_)}."
            )
        floats = _as_frames(frames).reshape(sequence.shape)
        return pool_sequence(floats, self.statistics_, self.frames, "refuse")[0]

    def get_feature_names_out(self, input_features: object = None) -> NDArray[np.object_]:
        """Names of the columns.

        Parameters
        ----------
        input_features : object, optional
            Not used; scikit-learn passes it.

        Returns
        -------
        ndarray of str
            ``modality__statistic__dimension``, statistic by statistic.
        """
        check_is_fitted(self)
        names = FeatureName.list_columns(self.modality, self.statistics_, self.n_dims_)
        return np.asarray(names, dtype=object)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags
