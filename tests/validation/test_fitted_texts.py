"""Features of transcripts are fitted within each training set; no other row decides them."""

import numpy as np
import pytest

from toolkit.models import Features
from toolkit.models.tfidf import TextColumns
from toolkit.validation.blending import tune_logistic
from toolkit.validation.fits import InnerFits
from toolkit.validation.fixed import FixedFits, predict_rest
from toolkit.validation.folds import inner_folds, speaker_folds
from toolkit.validation.ledger import LeakageError, Ledger, audit_entries
from toolkit.validation.nested import Protocol, run_unit
from toolkit.validation.search import SearchOptions

WIDTH = 6
PARAMS = {
    "booster": "lightgbm",
    "statistics": "rich",
    "screening": "none",
    "imbalance": "none",
    "max_bin": 31,
    "learning_rate": 0.3,
    "num_leaves": 4,
    "min_data_in_leaf": 3,
}
WORDS = ("stop", "great", "well", "fine", "table")


@pytest.fixture(scope="module")
def fold(manifest):
    return speaker_folds(manifest)[4]


@pytest.fixture(scope="module")
def inner(manifest, fold):
    folds = inner_folds(manifest, fold, grouping="speaker", n_folds=3, seed=0, purpose="search")
    return folds[0]


@pytest.fixture(scope="module")
def texts(manifest):
    rng = np.random.default_rng(0)
    own = (WORDS[label % len(WORDS)] for label in manifest.labels.tolist())
    return tuple(f"{word} {' '.join(rng.choice(WORDS, 3))}" for word in own)


@pytest.fixture(scope="module")
def changed(texts):
    """Change the transcripts of some rows."""

    def change(rows):
        return tuple(f"new {t} words" if i in {*rows} else t for i, t in enumerate(texts))

    return change


def make_features(texts):
    names = tuple(f"text__tfidf__{k:04d}" for k in range(WIDTH))
    values = np.full((len(texts), WIDTH), np.nan, dtype=np.float32)
    columns = {"rich": np.arange(WIDTH)}
    block = (TextColumns("text", 0, WIDTH, texts),)
    return Features(values, names, np.ones(len(texts), bool), columns, texts=block)


def make_fits(manifest, fold, texts):
    ledger = Ledger("text", fold, manifest.utterances, manifest.speakers)
    fits = InnerFits(
        make_features(texts),
        manifest.labels,
        fold.train,
        n_classes=len(manifest.classes),
        ledger=ledger,
        seed=1,
    )
    return fits, ledger


@pytest.mark.parametrize("more", [{}, {"screening": "ftest-3"}, {"imbalance": "smote"}])
def test_a_fit_depends_on_the_transcripts_of_its_training_rows_alone(
    manifest, fold, inner, changed, more
):
    texts = changed([])
    outside = np.setdiff1d(np.arange(len(texts)), inner.train)
    found = []
    for each in (texts, changed(outside), changed(inner.train[:1])):
        fits, _ = make_fits(manifest, fold, each)
        booster, prepared = fits.fit(
            PARAMS | more, inner.train, fit="inner 0", n_rounds=5, validation=inner.test
        )
        X = prepared.features.take(inner.train, prepared.columns)
        _, balanced = fits.balance(
            PARAMS | more, inner.train, fit="linear 0", made_as="inner 0"
        )
        found.append((booster.to_bytes(), X.tobytes(), balanced.X.tobytes()))
    assert found[0] == found[1]
    assert all(a != b for a, b in zip(found[0], found[2], strict=True))


def test_the_baseline_and_the_fixed_configuration_are_fitted_so_too(
    manifest, fold, inner, texts, changed
):
    n_classes = len(manifest.classes)
    results = []
    for each in (texts, changed(fold.test)):
        features = make_features(each)
        ledger = Ledger("text-logistic", fold, manifest.utterances, manifest.speakers)
        model, _, _ = tune_logistic(
            features,
            manifest.labels,
            fold.train,
            [inner],
            statistics="rich",
            metric="f1_micro",
            n_classes=n_classes,
            ledger=ledger,
        )
        used = {entry["fit"] for entry in ledger.entries() if entry["role"] == "vocabulary"}
        assert used == {"inner 0", "refit"}
        task = FixedFits(fold.train, ((0, inner.train, manifest.labels),))
        proba = predict_rest(features, task, n_classes=n_classes)[0]
        rest = np.setdiff1d(np.arange(len(texts)), inner.train)
        results.append((model.to_arrays()[0].tobytes(), proba[~np.isin(rest, fold.test)]))
    assert results[0][0] == results[1][0]
    np.testing.assert_array_equal(results[0][1], results[1][1])


def test_a_unit_learns_the_same_whatever_its_test_rows_say(manifest, fold, texts, changed):
    options = SearchOptions(
        n_trials=1, max_rounds=10, screening=("none",), imbalance=("none",), racing=False
    )
    units = [
        run_unit(
            manifest,
            make_features(each),
            fold,
            system="text",
            protocol=Protocol(inner=2),
            options=options,
        )
        for each in (texts, changed(fold.test))
    ]
    first, second = units
    assert first.booster.to_bytes() == second.booster.to_bytes()
    assert first.inner_proba.tobytes() == second.inner_proba.tobytes()
    assert first.proba.tobytes() != second.proba.tobytes()
    model = first.booster.texts["text"]
    assert model.to_array().tobytes() == second.booster.texts["text"].to_array().tobytes()
    # Each fit recorded the rows of its vocabulary: those that it trained on.
    roles = {(entry["fit"], entry["role"]): entry["rows"] for entry in first.ledger}
    fitted = [fit for fit, role in roles if role == "vocabulary"]
    assert {"inner 0", "out-of-fold 1", "refit", "linear 0", "linear refit"} <= {*fitted}
    assert all(roles[fit, "vocabulary"] == roles[fit, "train"] for fit in fitted)


def test_a_vocabulary_of_held_out_rows_is_refused_and_found(manifest, fold, texts):
    fits, ledger = make_fits(manifest, fold, texts)
    with pytest.raises(LeakageError, match=r"held out utterance.*'vocabulary'"):
        fits.fit(PARAMS, np.arange(len(texts)), fit="refit", n_rounds=1)

    ledger.record("refit", "vocabulary", fold.train)
    (entry,) = (e for e in ledger.entries() if e["role"] == "vocabulary")
    other = speaker_folds(manifest)[0]
    assert (
        "held-out utterances (vocabulary)"
        in audit_entries("text", other, [entry], manifest.speakers)[0]
    )
