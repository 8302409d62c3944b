"""Transcripts as the rows of a table: n-grams hashed, or kept for a fit on training rows."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from toolkit.data import Manifest
from toolkit.pooling.statistics import HASHING, TFIDF
from toolkit.pooling.table import FeatureTable, TableDraft

#: Arguments of scikit-learn's vectorizers: words and pairs of words, one letter long or more,
#: and two to four characters of one word.
NGRAMS: Final[dict[str, dict[str, Any]]] = {
    "words": {"analyzer": "word", "ngram_range": (1, 2), "token_pattern": r"(?u)\b\w+\b"},
    "characters": {"analyzer": "char_wb", "ngram_range": (2, 4)},
}
#: Most columns of TF-IDF: components of the truncated SVD.
_N_COMPONENTS: Final = 100
#: Columns per kind of n-grams, hashed.
_N_HASHED: Final = 512


def count_columns(extractor: str, texts: Sequence[str]) -> int:
    """Count the columns of transcripts; an empty one is missing.

    Those of TF-IDF are 100, but fewer than transcripts, whatever is in these.
    """
    if extractor == HASHING:
        return _N_HASHED * len(NGRAMS)
    return max(min(_N_COMPONENTS, sum(map(bool, texts)) - 1), 1)


def pool_texts(
    manifest: Manifest,
    modality: str,
    extractor: str,
    *,
    cache: Path,
    n_dims: int | None = None,
) -> FeatureTable:
    """Make the table of a modality of transcripts, or take it from the cache.

    The table of ``hashing`` holds features. That of ``tfidf`` holds the transcripts, and NaN
    in place of features, which are fitted on training rows.

    - n_dims: Columns, where a model was trained on another number of transcripts.
    """
    texts = manifest.texts[modality]
    present = np.array([text != "" for text in texts], dtype=bool)
    rows = json.dumps([manifest.utterances.tolist(), texts], ensure_ascii=True)
    digest = hashlib.sha256(rows.encode("ascii")).hexdigest()
    shape = (len(texts), n_dims or count_columns(extractor, texts))
    name = FeatureTable.make_key(modality, (), extractor, str(shape), repr(NGRAMS), digest)
    cache = Path(cache).absolute()
    with TableDraft.lock(cache, name) as draft:
        if (finished := FeatureTable.load(cache / name)) is not None:
            return finished
        values = draft.create_values(shape)
        record: dict[str, Any] = {"modality": modality, "statistics": [extractor]}
        record |= {"digest": digest, "counts": {}}
        if n_empty := int((~present).sum()):
            record["counts"] = {"files_absent": n_empty}
        if extractor == TFIDF:
            record["texts"] = list(texts)
        else:
            values[present] = _hash_ngrams([text for text in texts if text])
        values.flush()
        return draft.save(name, record, present, np.zeros(len(texts), dtype=np.int64))


def _hash_ngrams(texts: Sequence[str]) -> NDArray[np.float32]:
    """Hash n-grams into columns, with signs; each kind has length 1, or 0 without n-grams."""
    from sklearn.feature_extraction.text import HashingVectorizer  # noqa: PLC0415  (slow)

    hashed = [
        HashingVectorizer(n_features=_N_HASHED, **kind).transform(texts).toarray()
        for kind in NGRAMS.values()
    ]
    return np.hstack(hashed).astype(np.float32)
