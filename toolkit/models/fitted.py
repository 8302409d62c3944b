"""A trained model, trees and linear part: predictions, contributions, saving and loading."""

import hashlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Self, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax

from toolkit.files import (
    AnyPath,
    format_array,
    format_json,
    hash_file,
    read_array,
    read_json,
    write_bytes,
    write_text,
)
from toolkit.models.checks import check_matrix, check_structure
from toolkit.models.libraries import find_library
from toolkit.models.linear import LinearModel
from toolkit.models.tfidf import TextModel
from toolkit.pooling.statistics import WORD

_SIDE_SUFFIX: Final = ".meta.json"
_LINEAR_SUFFIX: Final = ".linear.npy"
_NGRAMS_SUFFIX: Final = ".ngrams.npy"  # after the modality
#: Far above what a study of people has; predictions have a column for each.
_MOST_CLASSES: Final = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class FittedBooster:
    """A trained booster, alone or with a linear part: margin = a x linear + b x trees.

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
    curve : ndarray of float64
        Validation log-loss after each round; empty without validation.
    model : object
        The library's own model.
    content : bytes
        Its bytes in the library's own format, where they are known; else they are made.
    linear : LinearModel or None
        The linear part, of the same columns and classes.
    weights : tuple of float
        a and b: the weights of linear part and trees.
    texts : mapping of str to TextModel
        Modality to the fit that makes its features of transcripts.
    """

    kind: str
    names: tuple[str, ...]
    n_classes: int
    classes: tuple[int, ...]
    curve: NDArray[np.float64] = field(repr=False)
    model: Any = field(repr=False)
    content: bytes = field(default=b"", repr=False)
    linear: LinearModel | None = field(default=None, repr=False)
    weights: tuple[float, float] = (0.0, 1.0)
    texts: Mapping[str, TextModel] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Keep the curve from being written to."""
        self.curve.flags.writeable = False

    def predict_proba(
        self, X: ArrayLike, *, names: Sequence[str] | None = None
    ) -> NDArray[np.float64]:
        """Predict class probabilities.

        Parameters
        ----------
        X : array-like, shape (n_rows, n_features)
            Features in the order of training; NaN where missing.
        names : sequence of str, optional
            Names of the columns; refused unless they are those of training.

        Returns
        -------
        ndarray of float64, shape (n_rows, n_classes)
            One column per class of the study, in label order; 0 for a class without training
            rows.
        """
        matrix = check_matrix(X, n_features=len(self.names))
        if names is not None and tuple(names) != self.names:
            raise ValueError(_describe_difference(tuple(names), self.names))
        proba = np.zeros((len(matrix), self.n_classes))
        if not len(matrix):
            return proba
        library = find_library(self.kind)
        if self.linear is None:
            proba[:, self.classes] = library.predict(self.model, matrix)
        else:
            a, b = self.weights
            trees = library.predict(self.model, matrix, margins=True)
            mixed = a * self.linear.margins(matrix) + b * trees
            proba[:, self.classes] = softmax(mixed, axis=1)
        return proba

    def predict_parts(self, X: ArrayLike) -> dict[str, NDArray[np.float64]]:
        """Predict class probabilities by trees and by linear part alone.

        Parameters
        ----------
        X : array-like, shape (n_rows, n_features)

        Returns
        -------
        dict of str to ndarray of float64, shape (n_rows, n_classes)
            ``trees`` and, where there is one, ``linear``.
        """
        parts = {"trees": replace(self, linear=None).predict_proba(X)}
        return (
            parts if self.linear is None else parts | {"linear": self.linear.predict_proba(X)}
        )

    def contributions(self, X: ArrayLike) -> NDArray[np.float64]:
        """Attribute the margins to the features, by the library's own method.

        Parameters
        ----------
        X : array-like, shape (n_rows, n_features)

        Returns
        -------
        ndarray of float64, shape (n_rows, n_classes, n_features + 1)
            Path-dependent SHAP values, which add up to the margin; the last column holds the
            expected margin. A class without training rows has no margin: all 0. A linear
            part adds the product of its coefficient and the column's distance from its mean.
        """
        matrix = check_matrix(X, n_features=len(self.names))
        values = np.zeros((len(matrix), self.n_classes, matrix.shape[1] + 1))
        if not len(matrix):
            return values
        own = find_library(self.kind).contributions(self.model, matrix)
        if self.linear is not None:
            a, b = self.weights
            own *= b
            own[:, :, :-1] += (
                a * self.linear.centred(matrix)[:, None] * self.linear.coefficients
            )
            own[:, :, -1] += a * self.linear.base
        values[:, self.classes] = own
        return values

    def to_bytes(self) -> bytes:
        """Write the model in its library's own format.

        Returns
        -------
        bytes
            LightGBM's text or XGBoost's JSON.
        """
        return self.content or find_library(self.kind).dump(self.model)

    def save(self, stem: Path) -> None:
        """Write the model in its library's own format, and the other fields beside it.

        The numbers of a linear part go to ``.linear.npy``, those of the n-grams of transcripts
        to ``.<modality>.ngrams.npy``, and kind, classes, curve, weights, vocabularies and
        checksums to ``.meta.json``.

        Parameters
        ----------
        stem : Path
            Folder and first part of the files' names, such as ``models/text/fold-00``.
        """

        def write(suffix: str, content: bytes) -> dict[str, Any]:
            write_bytes(stem.with_name(stem.name + suffix), content)
            return {"sha256": hashlib.sha256(content).hexdigest()}

        meta: dict[str, Any] = {
            "classes": self.classes,
            "curve": self.curve.tolist(),
            "kind": self.kind,
            "n_classes": self.n_classes,
        }
        if self.linear is not None:
            numbers, base = self.linear.to_arrays()
            own = write(_LINEAR_SUFFIX, format_array(numbers))
            meta["linear"] = own | {"base": base, "weights": list(self.weights)}
        for modality, text in self.texts.items():
            own = write(f".{modality}{_NGRAMS_SUFFIX}", format_array(text.to_array()))
            meta.setdefault("texts", {})[modality] = own | {"vocabulary": text.vocabulary}
        meta |= write(find_library(self.kind).suffix, self.to_bytes())
        write_text(stem.with_name(stem.name + _SIDE_SUFFIX), format_json(meta))

    @classmethod
    def load(cls, stem: AnyPath) -> Self:
        """Read a booster that :meth:`save` wrote.

        The structure of its trees is checked first, as a checksum is no shield against a
        crafted file. Whether its predictions mean anything, no check can say.

        Parameters
        ----------
        stem : Path
            As in :meth:`save`, or the same inside an archive.

        Returns
        -------
        FittedBooster
            Its predictions are the same to the last bit. Files that are not those written,
            or no model of a training, raise ValueError.
        """
        folder = cast("AnyPath", stem.parent)
        side = folder / f"{stem.name}{_SIDE_SUFFIX}"
        meta = _check_meta(read_json(side), side)
        kind = meta["kind"]
        library = find_library(kind)
        path = folder / f"{stem.name}{library.suffix}"
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != meta["sha256"]:
            raise ValueError(f"The model {path} is damaged: its bytes are not those written.")
        # Before the library parses it: its own parser may crash, or read outside its memory.
        try:
            check_structure(kind, content, n_trained=len(meta["classes"]))
        except ValueError as error:
            raise ValueError(f"The model {path} is refused: {error}.") from None
        model = library.load(content)
        names = library.feature_names(model)
        linear, weights = None, (0.0, 1.0)
        if "linear" in meta:
            make = partial(
                LinearModel.of_arrays,
                base=meta["linear"]["base"],
                n_classes=meta["n_classes"],
                classes=meta["classes"],
                n_features=len(names),
            )
            linear = _load_part(folder / f"{stem.name}{_LINEAR_SUFFIX}", meta["linear"], make)
            weights = tuple(meta["linear"]["weights"])
        return cls(
            kind=kind,
            names=names,
            n_classes=meta["n_classes"],
            classes=tuple(meta["classes"]),
            curve=np.array(meta["curve"], dtype=np.float64),
            model=model,
            content=content,
            linear=linear,
            weights=weights,
            texts={
                modality: _load_part(
                    folder / f"{stem.name}.{modality}{_NGRAMS_SUFFIX}",
                    own,
                    partial(TextModel.of_array, own["vocabulary"]),
                )
                for modality, own in meta.get("texts", {}).items()
            },
        )


def _check_meta(meta: Any, path: AnyPath) -> dict[str, Any]:
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
            and all(map(_is_finite, curve))
            and ("linear" not in meta or _describes_linear(meta["linear"]))
            and all(map(_describes_text, meta.get("texts", {}).items()))
        ):
            return dict(meta)
    raise ValueError(f"{path} does not describe a model.")


def _describes_linear(meta: Any) -> bool:
    match meta:
        case {"base": list() as base, "sha256": str(), "weights": [a, b]}:
            return all(map(_is_finite, [*base, a, b])) and a >= 0 and b >= 0
    return False


def _describes_text(item: tuple[str, Any]) -> bool:
    match item:
        case (name, {"sha256": str(), "vocabulary": {"words": [*a], "characters": [*b]}}):
            is_word = re.fullmatch(WORD, name) is not None  # a part of a path
            return is_word and all(isinstance(ngram, str) for ngram in [*a, *b])
    return False


def _is_finite(value: Any) -> bool:
    """Test for a number that a float holds; an integer of JSON may have any size."""
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max


def _load_part(
    path: AnyPath, meta: Mapping[str, Any], make: Callable[[NDArray[Any]], Any]
) -> Any:
    """Make a part of a model from its array, which must have the bytes written."""
    if not path.exists() or hash_file(path) != meta["sha256"]:
        raise ValueError(f"The model {path} is damaged: its bytes are not those written.")
    try:
        return make(read_array(path))
    except ValueError as error:
        raise ValueError(f"The model {path} is refused: {error}.") from None


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
