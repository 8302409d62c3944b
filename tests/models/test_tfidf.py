"""TF-IDF of transcripts and its truncated SVD: numbers, training rows, files."""

import numpy as np
import pytest
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline, make_union

from toolkit.models import Features
from toolkit.models.tfidf import TextColumns, TextModel

WORDS = ["a", "no", "stop", "that", "hurts", "great", "news", "it's", "fine", "Tuesday"]


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(0)
    return tuple(" ".join(rng.choice(WORDS, rng.integers(2, 7))) for _ in range(60))


def test_the_features_are_those_of_scikit_learn(texts):
    rows = np.arange(20, 60)
    options = {"sublinear_tf": True, "min_df": 2}
    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", **options)
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), **options)
    svd = TruncatedSVD(12, algorithm="arpack", random_state=3)
    pipeline = make_pipeline(make_union(words, letters), svd).fit([texts[i] for i in rows])

    found = TextModel.fit(texts, rows, 12)

    np.testing.assert_allclose(found.transform(texts), pipeline.transform(texts), atol=2e-6)
    assert found.vocabulary["words"] == tuple(words.get_feature_names_out())
    assert found.vocabulary["characters"] == tuple(letters.get_feature_names_out())


def test_rows_outside_the_training_set_decide_nothing(texts):
    rows = np.arange(20, 60)
    others = tuple(f"unseen {text} zebra" for text in texts[:20]) + texts[20:]

    first, second = (TextModel.fit(each, rows, 12) for each in (texts, others))

    assert first.vocabulary == second.vocabulary
    assert first.to_array().tobytes() == second.to_array().tobytes()
    assert first.transform(texts)[20:].tobytes() == second.transform(others)[20:].tobytes()
    # A row alone has the bytes that it has among others.
    assert first.transform(texts[7:8]).tobytes() == first.transform(texts)[7].tobytes()


def test_an_ngram_needs_two_training_transcripts():
    found = TextModel.fit(("yes we go", "yes no", "zebra zebra", "yes zebra"), np.arange(3), 2)
    assert found.vocabulary["words"] == ("yes",)


def test_a_transcript_without_a_known_ngram_is_a_row_of_0_and_an_empty_one_is_missing(texts):
    found = TextModel.fit(texts, np.arange(60), 5).transform(("...", "", texts[0]))
    assert not found[0].any()
    assert np.isnan(found[1]).all()
    assert found[2].any()


@pytest.mark.parametrize("same", ["no such", "?!"])
def test_components_beyond_the_rank_are_0(same):
    found = TextModel.fit((same,) * 6, np.arange(6), 4)
    assert found.components.shape[0] == 4
    assert not found.components[1:].any()
    assert found.transform(("no such",)).shape == (1, 4)


def test_columns_are_taken_after_a_fit_alone(texts):
    columns = TextColumns("text", 2, 5, ("", *texts[1:]))
    values = np.zeros((60, 7), dtype=np.float32)
    features = Features(values, ("",) * 7, np.ones(60, bool), {}, texts=(columns,))
    rows, every = np.arange(10), np.arange(7)
    assert not features.take(rows, np.arange(2)).any()
    with pytest.raises(ValueError, match="text features are of no training set"):
        features.take(rows, every)

    train = np.arange(40)
    fitted = features.fit(train)

    own = TextModel.fit(columns.texts, train[1:], 5)  # the first has no transcript
    expected = own.transform(columns.texts)
    np.testing.assert_array_equal(fitted.take(rows, every)[:, 2:], expected[:10])
    np.testing.assert_array_equal(fitted.take(rows, np.array([6, 0]))[:, 0], expected[:10, 4])
    again = features.apply({"text": fitted.texts[0].model})
    assert again.take(rows, every).tobytes() == fitted.take(rows, every).tobytes()


def test_another_array_than_that_of_the_vocabulary_is_refused(texts):
    found = TextModel.fit(texts, np.arange(60), 5)
    array, names = found.to_array(), {k: list(v) for k, v in found.vocabulary.items()}
    again = TextModel.of_array(names, array)
    assert again.transform(texts).tobytes() == found.transform(texts).tobytes()
    for vocabulary, numbers in (
        (names | {"words": []}, array),
        (names, array[:, 1:]),
        (names, array.astype(np.float64)),
        (names, array[0]),
        (names, array[:1]),
        (names, np.where(array == array.max(), np.inf, array)),
    ):
        with pytest.raises(ValueError, match=r"column per n-gram|no frequencies"):
            TextModel.of_array(vocabulary, numbers)
