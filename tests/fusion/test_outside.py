from dataclasses import replace

import numpy as np
import pytest

from toolkit.fusion import majority_vote
from toolkit.fusion.fuse import _BasePredictions, _fuse_outside
from toolkit.fusion.inputs import InnerPredictions
from toolkit.validation.predictions import Predictions


@pytest.fixture(scope="module")
def outside(study):
    """A better system from outside: right three times in four, and never certain."""
    rng = np.random.default_rng(3)
    first = study.voters[0].predictions
    margins = rng.normal(size=first.proba.shape) + 2.4 * np.eye(4)[first.labels]
    proba = np.exp(margins)
    proba /= proba.sum(axis=1, keepdims=True)
    return replace(
        first,
        system="net",
        present=np.ones(len(first), bool),
        proba=proba,
        y_pred=proba.argmax(axis=1),
    )


@pytest.fixture(scope="module")
def join(study):
    """Fuse the voters, sorted as a study does it, with a system from outside."""
    voters = sorted(study.voters, key=lambda voter: voter.system)

    def run(method, table):
        made, weights = _fuse_outside(voters, "net", table, [method])
        return made[f"{method}+net"], weights.get(f"{method}+net", {})

    return run


def accuracy(table):
    return (table.y_pred == table.labels).mean()


def test_a_vote_counts_the_system_from_outside_as_one_more_voter(study, outside, join):
    vote, weights = join("vote", outside)

    tables = [*(voter.predictions for voter in study.voters), outside]
    expected = majority_vote(tables, study.priors())
    np.testing.assert_allclose(vote.proba, expected.proba, atol=1e-5)
    assert vote.y_pred.tolist() == expected.y_pred.tolist()
    assert vote.system == "vote+net"
    assert weights == {}


def test_a_voter_without_probabilities_votes_and_decides_no_tie(study, outside, join):
    hard = replace(outside, proba=np.full_like(outside.proba, np.nan))

    vote, _ = join("vote", hard)

    tables = [voter.predictions for voter in study.voters]
    present = np.stack([table.present for table in tables])
    ballots = np.eye(4)[hard.y_pred] + sum(
        np.eye(4)[table.y_pred] * table.present[:, None] for table in tables
    )
    sums = np.where(present[:, :, None], [table.proba for table in tables], 0).sum(axis=0)
    leading = ballots == ballots.max(axis=1, keepdims=True)
    clear = present.any(axis=0)
    expected = np.where(leading, sums, -1).argmax(axis=1)
    assert vote.y_pred[clear].tolist() == expected[clear].tolist()
    assert vote.y_pred[~clear].tolist() == hard.y_pred[~clear].tolist()
    assert (leading.sum(axis=1) > 1).sum() > 20


def test_stacking_multiplies_powers_of_the_members(study, outside, join):
    fused, weights = join("stacked", outside)

    members = {voter.system: voter.predictions for voter in study.voters} | {"net": outside}
    priors = study.priors()
    for fold in study.folds:
        found = weights[fold.name]["weights"]
        assert list(found) == ["audio", "text", "visual", "net"]
        assert min(found.values()) >= 0
        product = np.ones((len(fold.test), 4))
        for name, weight in found.items():
            of = members[name]
            seen = of.present[fold.test][:, None]
            product *= np.where(seen, of.proba[fold.test], priors[fold.number]) ** weight
        expected = product / product.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(fused.proba[fold.test], expected, rtol=1e-4, atol=1e-6)


def test_a_planted_better_system_raises_the_fusion_above_all_members(study, outside, join):
    fused, _ = join("stacked", outside)

    alone = [accuracy(voter.predictions) for voter in study.voters]
    assert accuracy(fused) > accuracy(outside) > max(alone)


def test_certain_errors_count_against_the_system_that_makes_them(outside, join):
    labels = outside.labels
    y_pred = np.where(np.arange(len(labels)) % 5 < 2, labels, (labels + 1) % 4)
    certain = replace(outside, proba=np.eye(4)[y_pred], y_pred=y_pred)

    _, weights = join("stacked", certain)

    # Right in 40 %: without its errors it would be perfect, and weigh more than all others.
    for record in weights.values():
        assert record["weights"]["net"] < 0.2 < record["weights"]["visual"]


def test_no_fusion_reads_labels_from_the_models_of_other_folds():
    """Noise from outside, whose models lack the label shares of the people they predict."""
    scores = [_fuse_noise(seed) for seed in range(8)]

    # A regression with free coefficients scores .79 on this noise, the constant answer .47.
    fused, constant = np.mean(scores, axis=0)
    assert fused < constant + 0.03


def _fuse_noise(seed, n_people=8, n=20):
    """Score the fusion of noise, and the share of the larger class in training."""
    rng = np.random.default_rng(seed)
    shares = rng.beta(0.5, 0.5, n_people)
    labels = (rng.random((n_people, n)) < shares[:, None]).astype(int).ravel()
    people = np.repeat(np.arange(n_people), n)
    groups = np.array([f"S{k}" for k in people])
    utterances = np.array([f"u{row:04d}" for row in range(len(labels))])

    def guess(rows, without, sd):
        share = np.clip(np.mean(labels[~np.isin(people, without)]), 0.01, 0.99)
        margin = np.log(share / (1 - share)) + sd * rng.standard_normal(len(rows))
        second = 1 / (1 + np.exp(-margin))
        return np.stack([1 - second, second], axis=1)

    inner = {}
    ours, theirs = np.empty((len(labels), 2)), np.empty((len(labels), 2))
    for k in range(n_people):
        test, train = np.flatnonzero(people == k), np.flatnonzero(people != k)
        ours[test], theirs[test] = guess(test, [k], 0.3), guess(test, [k], 0.02)
        proba = np.empty((len(train), 2))
        others = [other for other in range(n_people) if other != k]
        for part in np.array_split(rng.permutation(others), 3):
            rows = np.isin(people[train], part)
            proba[rows] = guess(train[rows], [k, *part], 0.3)
        seen = np.ones(len(train), bool)
        inner[k] = InnerPredictions(train, labels[train], groups[train], seen, proba)
    table = Predictions(
        *("text", ("no", "yes"), utterances, groups, None, people),
        np.ones(len(labels), bool),
        labels,
        ours,
    )
    base = _BasePredictions(table, inner)
    net = replace(table, system="net", proba=theirs, y_pred=theirs.argmax(axis=1))
    fused = _fuse_outside([base], "net", net, ["stacked"])[0]["stacked+net"]
    constant = [labels[people != k].mean() > 0.5 for k in range(n_people)]
    return accuracy(fused), np.mean(labels == np.repeat(constant, n))
