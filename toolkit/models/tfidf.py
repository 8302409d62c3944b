"""TF-IDF of transcripts and its truncated SVD, fitted on training rows alone.

Counting n-grams is stateless and done once. Vocabulary, inverse document frequencies and
components are fitted, so that each training set has its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import svds

from toolkit.pooling.corpus import NGRAMS

#: Training transcripts that must have an n-gram, and most n-grams kept of a kind, the ones of
#: most transcripts.
_LEAST_TEXTS, _MOST_NGRAMS = 2, 5_000
#: Singular values below this share of the largest are rounding: their directions are noise.
_RANK: Final = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class TextModel:
    """Vocabulary, inverse document frequencies and components of training transcripts.

    - vocabulary: Kind of n-grams to these, sorted; columns are in this order.
    - idf: Shape (n_ngrams,): ln((1 + n) / (1 + n with the n-gram)) + 1.
    - components: Shape (n_components, n_ngrams); rows beyond the rank are 0.
    """

    vocabulary: dict[str, tuple[str, ...]]
    idf: NDArray[np.float32]
    components: NDArray[np.float32]

    def transform(self, texts: tuple[str, ...]) -> NDArray[np.float32]:
        """Give the features of transcripts, shape (n, n_components); 0 without known n-gram.

        A row depends on its own transcript only; an empty one is missing: NaN.
        """
        parts = [_find(_count(texts, kind), self.vocabulary[kind]) for kind in NGRAMS]
        ends = np.cumsum([part.shape[1] for part in parts])[:-1]
        idfs = np.split(self.idf.astype(np.float64), ends)
        weighted = sparse.hstack(list(map(_weigh, parts, idfs)), format="csr")
        projected = weighted @ self.components.T.astype(np.float64)
        values: NDArray[np.float32] = projected.astype(np.float32)
        values[[not text for text in texts]] = np.nan
        return values

    @classmethod
    def fit(cls, texts: tuple[str, ...], rows: NDArray[np.int64], n_components: int) -> Self:
        """Fit to the transcripts of training rows; no other row decides anything."""
        vocabulary, idfs, parts = {}, [], []
        for kind in NGRAMS:
            names, counts = _count(texts, kind)
            # Documents per n-gram: each is stored once per transcript that has it.
            n_texts = np.bincount(counts[rows].indices, minlength=len(names))
            found = np.flatnonzero(n_texts >= _LEAST_TEXTS)
            most = np.argsort(-n_texts[found], kind="stable")[:_MOST_NGRAMS]
            kept = np.sort(found[most])
            vocabulary[kind] = tuple(names[column] for column in kept.tolist())
            # Rounded as it is saved, so that a saved model gives the same numbers.
            idf = (np.log((1 + len(rows)) / (1 + n_texts[kept])) + 1).astype(np.float32)
            idfs.append(idf)
            parts.append(_weigh(counts[rows][:, kept], idf.astype(np.float64)))
        matrix = sparse.hstack(parts, format="csr")
        components = np.zeros((n_components, matrix.shape[1]), dtype=np.float32)
        rank = min(n_components, min(matrix.shape) - 1)
        if rank > 0:
            start = np.random.default_rng(0).uniform(-1, 1, min(matrix.shape))
            _, sizes, found = svds(matrix, rank, v0=start, return_singular_vectors=True)
            order = np.argsort(-sizes)
            order = order[sizes[order] > _RANK * sizes.max()]
            found = found[order]
            largest = np.take_along_axis(found, np.abs(found).argmax(axis=1)[:, None], axis=1)
            components[: len(found)] = found * np.sign(largest)  # which svds leaves open
        return cls(vocabulary, np.concatenate(idfs), components)

    def to_array(self) -> NDArray[np.float32]:
        """Give frequencies and components as one array, the former in its first row."""
        return np.vstack([self.idf, self.components])

    @classmethod
    def of_array(cls, vocabulary: Mapping[str, Sequence[str]], array: NDArray[Any]) -> Self:
        """Take back the vocabulary and :meth:`to_array`; refuse what does not fit together."""
        width = sum(len(vocabulary[kind]) for kind in NGRAMS)
        if array.dtype != np.float32 or array.ndim != 2 or array.shape[1] != width:
            raise ValueError("it has not a column per n-gram")
        if len(array) < 2 or not np.isfinite(array).all():
            raise ValueError("its numbers are no frequencies and components")
        return cls({kind: tuple(vocabulary[kind]) for kind in NGRAMS}, array[0], array[1:])


@lru_cache(maxsize=8)
def _count(texts: tuple[str, ...], kind: str) -> tuple[list[str], sparse.csr_matrix]:
    """Count the n-grams of all transcripts: their names, sorted, and counts per transcript."""
    from sklearn.feature_extraction.text import CountVectorizer  # noqa: PLC0415  (slow)

    vectorizer = CountVectorizer(**NGRAMS[kind])
    analyse = vectorizer.build_analyzer()
    if not any(analyse(text) for text in texts):  # scikit-learn would raise
        return [], sparse.csr_matrix((len(texts), 0))
    counts = sparse.csr_matrix(vectorizer.fit_transform(texts))
    return vectorizer.get_feature_names_out().tolist(), counts


def _find(
    counted: tuple[list[str], sparse.csr_matrix], vocabulary: tuple[str, ...]
) -> sparse.csr_matrix:
    """Take the columns of a vocabulary; an n-gram that no transcript has is a column of 0."""
    names, counts = counted
    wanted = {name: column for column, name in enumerate(vocabulary)}
    places = [(row, wanted[name]) for row, name in enumerate(names) if name in wanted]
    row, column = np.array(places, dtype=np.int64).reshape(-1, 2).T
    shape = len(names), len(vocabulary)
    return counts @ sparse.csr_matrix((np.ones(len(row), np.int64), (row, column)), shape)


def _weigh(counts: sparse.csr_matrix, idf: NDArray[np.float64]) -> sparse.csr_matrix:
    """Weigh counts: (1 + ln count) x idf, and rows of length 1."""
    weighted = counts.astype(np.float64)
    weighted.sort_indices()  # sums depend on the order
    weighted.data = (1 + np.log(weighted.data)) * idf[weighted.indices]
    lengths = np.sqrt(np.ravel(weighted.multiply(weighted).sum(axis=1)))
    weighted.data /= np.repeat(lengths, np.diff(weighted.indptr))
    return weighted


@lru_cache(maxsize=8)  # training sets of a unit
def _fit_once(
    texts: tuple[str, ...], packed_rows: bytes, n_components: int
) -> tuple[TextModel, NDArray[np.float32]]:
    """Fit a training set once for all trials, and give the features of all rows with it."""
    rows = np.frombuffer(packed_rows, dtype=np.int64)
    model = TextModel.fit(texts, rows, n_components)
    return model, model.transform(texts)


@dataclass(frozen=True, slots=True, eq=False)
class TextColumns:
    """Columns of one modality, from ``start`` on; model and values are None before a fit."""

    modality: str
    start: int
    width: int
    texts: tuple[str, ...]
    model: TextModel | None = None
    values: NDArray[np.float32] | None = None

    def fit(self, rows: NDArray[np.int64]) -> Self:
        """Fit to training rows."""
        own = np.array([row for row in rows.tolist() if self.texts[row]], dtype=np.int64)
        model, values = _fit_once(self.texts, own.tobytes(), self.width)
        return replace(self, model=model, values=values)

    def apply(self, model: TextModel) -> Self:
        """Take the features that a fitted model gives."""
        return replace(self, model=model, values=model.transform(self.texts))

    def fill(
        self, found: NDArray[np.float32], rows: NDArray[np.int64], columns: NDArray[np.int64]
    ) -> None:
        """Fill these columns of the values taken at some rows and columns."""
        own = np.flatnonzero((columns >= self.start) & (columns < self.start + self.width))
        if not len(own):
            return
        # Without a fit there is no training set that the numbers could come from.
        if self.values is None:
            raise ValueError(f"The {self.modality} features are of no training set yet.")
        found[:, own] = self.values[np.ix_(rows, columns[own] - self.start)]
