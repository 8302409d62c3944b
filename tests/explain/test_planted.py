"""A truth that is planted is found again: modalities, families, and noise that is nothing."""

import numpy as np
import pytest

from toolkit.explain import Explainer, Totals, explain_permuted, play_game
from toolkit.explain.shapley import _late_systems
from toolkit.explain.shares import compute_shares
from toolkit.models import Features
from toolkit.models.boosters import fit_booster, make_training_data
from toolkit.validation import Fold, Predictions
from toolkit.validation.ledger import Ledger

N_SPEAKERS, N_EACH, N_CLASSES = 6, 40, 3
LABELS = np.arange(N_SPEAKERS * N_EACH) % N_CLASSES
SPEAKERS = np.repeat([f"P{k}" for k in range(N_SPEAKERS)], N_EACH)
PARAMS = {"num_leaves": 4, "feature_fraction": 0.2, "learning_rate": 0.1}
RECIPE = {"booster": "lightgbm", "screening": "none", "imbalance": "none", "max_bin": 31}
MODALITIES = ("text", "audio", "noise")


def make_columns():
    """Text tells most; audio tells by its mean alone; noise is wide and tells nothing."""
    rng = np.random.default_rng(11)
    n = len(LABELS)
    names, columns = [], []

    def add(modality, statistic, n_dims, strength):
        for dimension in range(n_dims):
            names.append(f"{modality}__{statistic}__{dimension:04d}")
            column = rng.normal(size=n)
            if dimension < 2:
                column += strength * (dimension == LABELS)
            columns.append(column)

    add("text", "value", 4, 1.6)
    add("audio", "mean", 6, 0.9)
    add("audio", "std", 6, 0.0)
    add("noise", "value", 60, 0.0)
    return np.array(columns, dtype=np.float32).T, tuple(names)


@pytest.fixture(scope="module")
def planted():
    """Predictions and contributions of every system, each speaker held out in turn."""
    X, names = make_columns()
    utterances = np.array([f"u{k:03d}" for k in range(len(X))])
    folds = [
        Fold(k, np.flatnonzero(s != SPEAKERS), np.flatnonzero(s == SPEAKERS), (s,))
        for k, s in enumerate(np.unique(SPEAKERS))
    ]
    tables, totals, nulls = {}, [], []
    features = Features(X, names, np.ones(len(X), bool), {"all": np.arange(len(names))})
    for system in (*MODALITIES, "early"):
        mine = np.flatnonzero([system in ("early", n.partition("__")[0]) for n in names])
        seen = tuple(names[k] for k in mine)
        proba = np.zeros((len(X), N_CLASSES))
        for fold in folds:
            data = make_training_data(
                "lightgbm",
                X[fold.train][:, mine],
                LABELS[fold.train],
                n_classes=N_CLASSES,
                names=seen,
                max_bin=31,
            )
            booster = fit_booster(data, PARAMS, n_rounds=40, seed=0)
            proba[fold.test] = booster.predict_proba(X[fold.test][:, mine])
            if system == "early":
                totals.append(Explainer.of(booster).total(X[fold.test]))
                nulls.append(
                    explain_permuted(
                        features,
                        LABELS,
                        SPEAKERS,
                        fold,
                        RECIPE | PARAMS | {"statistics": "all"},
                        n_rounds=40,
                        n_classes=N_CLASSES,
                        ledger=Ledger("early-permuted", fold, utterances, SPEAKERS),
                        seed=fold.number,
                        n_repeats=2,
                    )
                )
        tables[system] = Predictions(
            system=system,
            classes=("a", "b", "c"),
            utterances=utterances,
            speakers=SPEAKERS,
            sessions=None,
            folds=np.repeat(np.arange(N_SPEAKERS), N_EACH),
            present=np.ones(len(X), dtype=bool),
            labels=LABELS,
            proba=proba,
        )
    rows = [fold.test for fold in folds]
    joined = Totals.join(totals, rows, len(X))
    permuted = [Totals.join([n[k] for n in nulls], rows, len(X)) for k in range(2)]
    return tables, compute_shares(tables["early"], joined, permuted)


def whole(shares, level):
    return {
        (r.modality, r.part): r
        for r in shares
        if (r.level, r.outcome, r.speaker, r.class_name) == (level, "all", "", "")
    }


def test_modalities_are_ranked_as_planted(planted):
    shares = whole(planted[1], "modality")
    gains = {m: shares[m, ""].share - shares[m, ""].permuted for m in MODALITIES}

    assert gains["text"] > gains["audio"] > gains["noise"]
    assert shares["text", ""].share > 2 * shares["text", ""].permuted
    truth = {m: shares[m, ""].toward_truth for m in MODALITIES}
    assert truth["text"] > truth["audio"] > 5 * abs(truth["noise"])


def test_the_family_that_tells_is_found(planted):
    shares = whole(planted[1], "family")
    mean, spread = shares["audio", "level"], shares["audio", "spread"]

    assert mean.share > mean.permuted_high
    assert mean.share > 2 * spread.share
    assert spread.share <= spread.permuted_high
    assert mean.toward_truth > 5 * abs(spread.toward_truth)


def test_noise_has_no_more_share_than_labels_that_mean_nothing_give_it(planted):
    noise = whole(planted[1], "modality")["noise", ""]

    assert noise.share < noise.permuted_high
    # Summed magnitudes flatter what is wide: why they are marked.
    assert noise.grows_with_width > noise.share


def test_noise_is_worth_nothing_and_text_most(planted):
    tables = planted[0]
    shares = {k: np.full(N_CLASSES, 1 / N_CLASSES) for k in range(N_SPEAKERS)}
    majority = Predictions(
        system="majority",
        classes=("a", "b", "c"),
        utterances=tables["early"].utterances,
        speakers=SPEAKERS,
        sessions=None,
        folds=tables["early"].folds,
        present=tables["early"].present,
        labels=LABELS,
        proba=np.full((len(LABELS), N_CLASSES), 1 / N_CLASSES),
    )

    systems = _late_systems([tables[m] for m in MODALITIES], majority, shares)
    records = play_game("late-soft", MODALITIES, systems)

    value = {r.players: r for r in records if (r.kind, r.group) == ("value", "")}
    assert value["text"].value > value["audio"].value > value["noise"].value
    noise = value["noise"]
    assert noise.low <= 0 <= noise.high or abs(noise.value) <= 0.02
