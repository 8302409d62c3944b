"""Late fusion in scikit-learn's hands: cloned, searched, validated, and by a study's rules."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    GroupShuffleSplit,
    KFold,
    LeaveOneGroupOut,
    cross_val_predict,
    cross_val_score,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.estimator_checks import parametrize_with_checks

from toolkit.fusion import LateFusion
from toolkit.fusion.inputs import InnerPredictions, StackedPredictions
from toolkit.fusion.late import _count_votes, _fit_weights, learn_rule
from toolkit.pooling import SequencePooler
from toolkit.validation.folds import FINAL, Fold
from toolkit.validation.ledger import Ledger

METHODS = ("vote", "soft", "weighted", "stacked", "log-pool")


@pytest.mark.slow
@parametrize_with_checks(
    [
        LateFusion([("a", GaussianNB(), slice(None)), ("b", GaussianNB(), [0])], method=method)
        for method in ("vote", "soft")
    ]
    + [
        LateFusion(
            [("a", GaussianNB(), slice(None)), ("b", DecisionTreeClassifier(), [0])],
            method=method,
            cv=KFold(2),
        )
        for method in ("weighted", "stacked", "log-pool")
    ]
)
def test_scikit_learn_finds_nothing_to_say(estimator, check):
    check(estimator)


@pytest.fixture
def people():
    """Sequences of two modalities by six people; the voice of every fifth row is missing."""
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=90)
    frame = pd.DataFrame(
        {
            "speaker": [f"p{row % 6}" for row in range(90)],
            "voice": [rng.normal(k, size=(rng.integers(2, 9), 4)) for k in labels],
            "face": [rng.normal(0.4 * k, size=(rng.integers(2, 9), 3)) for k in labels],
        }
    )
    frame.loc[::5, "voice"] = None
    return frame, np.array(["anger", "joy", "neutral"])[labels]


def make_fusion(method, **options):
    voters = [
        (name, make_pipeline(SequencePooler(name, statistics="basic"), *steps), name)
        for name, steps in (
            ("voice", [StandardScaler(), LogisticRegression()]),
            ("face", [GaussianNB()]),
        )
    ]
    return LateFusion(voters, method=method, groups="speaker", **options)


@pytest.mark.parametrize("method", METHODS)
def test_people_held_out_are_predicted_above_chance(people, method):
    frame, labels = people

    scores = cross_val_score(
        make_fusion(method), frame, labels, groups=frame["speaker"], cv=LeaveOneGroupOut()
    )

    assert len(scores) == 6
    assert scores.mean() > 0.6


@pytest.mark.parametrize("method", METHODS)
def test_a_clone_and_a_pickle_say_the_same(people, method):
    frame, labels = people
    fusion = make_fusion(method).fit(frame, labels)

    expected = fusion.predict_proba(frame)

    again = clone(fusion).fit(frame, labels)
    np.testing.assert_array_equal(again.predict_proba(frame), expected)
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(fusion)).predict_proba(frame), expected
    )


def test_parameters_of_a_voter_can_be_searched(people):
    frame, labels = people
    name = "voice__logisticregression__C"
    search = GridSearchCV(make_fusion("soft"), {name: [1e-6, 1.0]}, cv=2).fit(frame, labels)

    assert search.best_params_ == {name: 1.0}
    assert search.best_estimator_.estimators_[0][-1].C == 1.0
    assert make_fusion("soft").get_params()[name] == 1.0


def test_a_vote_is_counted_by_the_rule_of_a_study(people):
    frame, labels = people
    fusion = make_fusion("vote").fit(frame, labels)
    proba = fusion.transform(frame).reshape(90, 2, 3).transpose(1, 0, 2)
    present = ~np.isnan(proba).any(axis=2)
    priors = np.tile(pd.Series(labels).value_counts(normalize=True).sort_index(), (90, 1))
    stacked = StackedPredictions(
        np.nan_to_num(proba).argmax(axis=2), np.nan_to_num(proba), present, priors
    )

    expected = _count_votes(stacked)

    np.testing.assert_allclose(fusion.predict_proba(frame), expected.proba)
    np.testing.assert_array_equal(fusion.predict(frame), fusion.classes_[expected.y_pred])


def held_out(fusion, whole, truth):
    """Out-of-fold predictions of the voters, person by person, and the true codes."""
    proba = np.stack(
        [
            cross_val_predict(
                voter,
                whole[name],
                truth,
                groups=whole["speaker"],
                cv=LeaveOneGroupOut(),
                method="predict_proba",
            )
            for name, voter, _ in fusion.voters
        ]
    )
    everywhere = np.ones(proba.shape[:2], dtype=bool)
    priors = np.tile(fusion.class_prior_, (len(truth), 1))
    stacked = StackedPredictions(proba.argmax(axis=2), proba, everywhere, priors)
    return stacked, np.searchsorted(fusion.classes_, truth)


@pytest.fixture
def whole(people):
    """The rows that have both modalities."""
    frame, labels = people
    return frame.dropna().reset_index(drop=True), labels[frame["voice"].notna()]


def test_weights_are_learnt_from_predictions_that_held_people_out(whole):
    fusion = make_fusion("weighted", cv=LeaveOneGroupOut()).fit(*whole)

    np.testing.assert_allclose(fusion.weights_, _fit_weights(*held_out(fusion, *whole)))


def test_the_weights_of_a_pool_are_those_of_a_study(whole):
    frame, truth = whole
    fusion = make_fusion("log-pool", cv=LeaveOneGroupOut()).fit(frame, truth)

    stacked, codes = held_out(fusion, frame, truth)
    people = frame["speaker"].to_numpy().astype(str)
    rows = np.arange(len(codes))
    inner = InnerPredictions(rows, codes, people, stacked.seen, stacked.proba[0])
    ledger = Ledger("log-pool", Fold(FINAL, rows, rows[:0], ()), rows.astype(str), people)
    rule, _ = learn_rule("log-pool", stacked, inner, lambda _: ledger)
    np.testing.assert_allclose(fusion.weights_, rule.keywords["weights"], rtol=1e-9)
    assert fusion.weights_.min() > 0


def test_a_pool_multiplies_powers_and_fills_absent_voters_with_the_priors(people):
    frame, labels = people
    fusion = make_fusion("log-pool").fit(frame, labels)

    proba = fusion.transform(frame).reshape(90, 2, 3)
    filled = np.where(np.isnan(proba), fusion.class_prior_, proba)
    # A probability of naive Bayes may be nearly 0; it counts as 1e-12.
    product = (np.maximum(filled, 1e-12) ** fusion.weights_[:, None]).prod(axis=1)
    expected = product / product.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(fusion.predict_proba(frame), expected, rtol=1e-9)
    empty = frame.head(2).assign(voice=None, face=None)
    np.testing.assert_array_equal(
        fusion.predict_proba(empty), np.tile(fusion.class_prior_, (2, 1))
    )


def test_a_missing_modality_has_no_say(people):
    frame, labels = people
    fusion = make_fusion("soft").fit(frame, labels)
    face = fusion.estimators_[1]

    np.testing.assert_allclose(
        fusion.predict_proba(frame[::5]), face.predict_proba(frame["face"][::5])
    )
    empty = frame.head(2).assign(voice=None, face=None)
    np.testing.assert_allclose(
        fusion.predict_proba(empty), np.tile(fusion.class_prior_, (2, 1))
    )


def test_a_voter_that_never_met_a_class_gives_it_no_probability():
    X = np.array([[0.0, 0.0], [1.0, 1.0], [np.nan, 2.0], [np.nan, 2.5]])
    voters = [("few", GaussianNB(), [0]), ("all", GaussianNB(), [1])]
    fusion = LateFusion(voters, method="soft").fit(X, ["a", "b", "c", "c"])

    assert fusion.estimators_[0].classes_.tolist() == ["a", "b"]
    assert fusion.transform(X)[0, 2] == 0


def test_what_voters_say_comes_out_under_names(people):
    frame, labels = people
    table = (
        make_fusion("soft").set_output(transform="pandas").fit(frame, labels).transform(frame)
    )

    assert list(table.columns[:4]) == [
        "voice__anger",
        "voice__joy",
        "voice__neutral",
        "face__anger",
    ]
    assert table["voice__joy"].isna().sum() == 18


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "mean"}, "Unknown method 'mean'; choose among vote"),
        ({"method": "stacked", "groups": None}, "stacked learns from .* name their column"),
        ({"method": "log-pool", "groups": None}, "log-pool learns from .* name their column"),
        ({"voters": [("a", GaussianNB(), [0])]}, r"Got 1 voter\(s\); expected at least two"),
        ({"method": "weighted", "cv": GroupShuffleSplit(1, random_state=0)}, "each once"),
    ],
)
def test_what_does_not_fit_is_refused(people, options, message):
    frame, labels = people

    with pytest.raises(ValueError, match=message):
        make_fusion("vote").set_params(**options).fit(frame, labels)


def test_a_modality_that_nobody_has_is_named(people):
    frame, labels = people

    with pytest.raises(ValueError, match="'voice' has nothing to learn from"):
        make_fusion("soft").fit(frame.assign(voice=None), labels)
