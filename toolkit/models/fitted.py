"""A trained booster: predictions, contributions, saving and loading."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from toolkit.files import format_json, read_json, write_bytes, write_text
from toolkit.models.checks import check_matrix, check_structure
from toolkit.models.libraries import find_library

_SIDE_SUFFIX: Final = ".meta.json"
#: Far above what a study of people has; predictions have a column for each.
_MOST_CLASSES: Final = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class FittedBooster:
    """A trained booster.

    Parameters
    ----------
    kind : str
        ``"lightgbm"`` or ``"xgboost"``.
    names : tuple of str
        The features' names, in the order of the columns.
    n_classes : int
        Number of the study's classes, which is the number of probability columns.
    classes : tuple of int
        The classes that the training rows had.
    n_rounds : int
        Boosting rounds, each of one tree per trained class.
    curve : ndarray of float64
        Validation log-loss after each round; empty without validation.
    model : object
        The library's own model.
    """

    kind: str
    names: tuple[str, ...]
    n_classes: int
    classes: tuple[int, ...]
    n_rounds: int
    curve: NDArray[np.float64] = field(repr=False)
    model: Any = field(repr=False)

    def __post_init__(self) -> None:
        """Keep the curve from being written to."""
        self.curve.flags.writeable = False

    def predict_proba(
        self, X: ArrayLike, *, names: Sequence[str] | None = None, n_rounds: int | None = None
    ) -> NDArray[np.float64]:
        """Predict class probabilities.

        Parameters
        ----------
        X : array-like, shape (n_rows, n_features)
            Features in the order of training; NaN where missing.
        names : sequence of str, optional
            Names of the columns; refused unless they are those of training.
        n_rounds : int, optional
            Use the first rounds only; all by default.

        Returns
        -------
        ndarray of float64, shape (n_rows, n_classes)
            One column per class of the study, in label order; 0 for a class without training
            rows.
        """
        matrix, n_rounds = self._check(X, names, n_rounds)
        proba = np.zeros((len(matrix), self.n_classes))
        if len(matrix):
            library = find_library(self.kind)
            proba[:, self.classes] = library.predict(self.model, matrix, n_rounds)
        return proba

    def contributions(
        self, X: ArrayLike, *, names: Sequence[str] | None = None, n_rounds: int | None = None
    ) -> NDArray[np.float64]:
        """Attribute the margins to the features, by the library's own method.

        Parameters
        ----------
        X, names, n_rounds
            As in :meth:`predict_proba`.

        Returns
        -------
        ndarray of float64, shape (n_rows, n_classes, n_features + 1)
            Path-dependent SHAP values, which add up to the margin; the last column holds the
            expected margin. A class without training rows has no margin: all 0.
        """
        matrix, n_rounds = self._check(X, names, n_rounds)
        values = np.zeros((len(matrix), self.n_classes, matrix.shape[1] + 1))
        if len(matrix):
            values[:, self.classes] = find_library(self.kind).contributions(
                self.model, matrix, n_rounds
            )
        return values

    def to_bytes(self) -> bytes:
        """Write the model in its library's own format.

        Returns
        -------
        bytes
            LightGBM's text or XGBoost's JSON.
        """
        return find_library(self.kind).dump(self.model)

    def save(self, stem: Path) -> tuple[Path, Path]:
        """Write the model in its library's own format, and the other fields beside it.

        Parameters
        ----------
        stem : Path
            Folder and first part of the files' names, such as ``models/text/fold-00``.

        Returns
        -------
        tuple of Path
            The model, and ``.meta.json`` with kind, classes, curve and the model's checksum.
        """
        content = self.to_bytes()
        meta = {
            "classes": self.classes,
            "curve": self.curve.tolist(),
            "kind": self.kind,
            "n_classes": self.n_classes,
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        model_path = stem.with_name(stem.name + find_library(self.kind).suffix)
        side_path = stem.with_name(stem.name + _SIDE_SUFFIX)
        write_bytes(model_path, content)
        write_text(side_path, format_json(meta))
        return model_path, side_path

    @classmethod
    def load(cls, stem: Path) -> Self:
        """Read a booster that :meth:`save` wrote.

        The structure of its trees is checked first, as a checksum is no shield against a
        crafted file. Whether its predictions mean anything, no check can say.

        Parameters
        ----------
        stem : Path
            As in :meth:`save`.

        Returns
        -------
        FittedBooster
            Its predictions are the same to the last bit.

        Raises
        ------
        ValueError
            If the model file is not the one that was written, or no model of a training.
        """
        side = stem.with_name(stem.name + _SIDE_SUFFIX)
        meta = _check_meta(read_json(side), side)
        kind = meta["kind"]
        library = find_library(kind)
        path = stem.with_name(stem.name + library.suffix)
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != meta["sha256"]:
            raise ValueError(f"The model {path} is damaged: its bytes are not those written.")
        # Before the library parses it: its own parser may crash, or read outside its memory.
        try:
            check_structure(kind, content, n_trained=len(meta["classes"]))
        except ValueError as error:
            raise ValueError(f"The model {path} is refused: {error}.") from None
        model = library.load(content)
        return cls(
            kind=kind,
            names=library.feature_names(model),
            n_classes=meta["n_classes"],
            classes=tuple(meta["classes"]),
            n_rounds=library.count_rounds(model),
            curve=np.array(meta["curve"], dtype=np.float64),
            model=model,
        )

    def _check(
        self, X: ArrayLike, names: Sequence[str] | None, n_rounds: int | None
    ) -> tuple[NDArray[np.float32], int]:
        matrix = check_matrix(X, n_features=len(self.names))
        if names is not None and tuple(names) != self.names:
            raise ValueError(_describe_difference(tuple(names), self.names))
        if n_rounds is not None and not 1 <= n_rounds <= self.n_rounds:
            raise ValueError(
                f"Cannot predict with {n_rounds} rounds; the booster has 1 to {self.n_rounds}."
            )
        return matrix, n_rounds or self.n_rounds


def _check_meta(meta: Any, path: Path) -> dict[str, Any]:
    """Check the fields that are kept beside a model."""
    match meta:
        case {
            "kind": str(),
            "sha256": str(),
            "n_classes": int() as n,
            "classes": [int(), *_] as codes,
            "curve": list() as curve,
        } if (
            codes == sorted({*codes})
            and codes[0] >= 0
            and codes[-1] < n <= _MOST_CLASSES
            and all(isinstance(value, int | float) for value in curve)
        ):
            return dict(meta)
    raise ValueError(f"{path} does not describe a model.")


def _describe_difference(given: tuple[str, ...], expected: tuple[str, ...]) -> str:
    if len(given) != len(expected):
        return (
            f"There are {len(given)} feature names; expected the {len(expected)} of training."
        )
    column = next(k for k, name in enumerate(given) if name != expected[k])
    order = " in another order" if set(given) == set(expected) else ""
    return (
        f"The features are not those of training{order}: column {column} is {given[column]!r}, "
        f"expected {expected[column]!r}."
    )
