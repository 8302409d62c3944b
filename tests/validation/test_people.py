"""Groups of people, risk and coverage, prediction sets: from definitions, and by simulation."""

from fractions import Fraction
from itertools import permutations
from math import sqrt

import numpy as np
import pytest
from scipy.special import softmax

from toolkit.validation import Predictions
from toolkit.validation.people import (
    choose_answers,
    compare_groups,
    group_people,
    make_sets,
    risk_curve,
    score_risk,
)
from toolkit.validation.scores import find_score, score_groups, score_predictions

N_CLASSES = 3


def table(speakers, labels, proba):
    """Predictions of one system, a fold per speaker."""
    folds = np.unique(speakers, return_inverse=True)[1]
    return Predictions(
        system="text",
        classes=("a", "b", "c")[: proba.shape[1]],
        utterances=np.array([f"u{row:05d}" for row in range(len(labels))]),
        speakers=np.asarray(speakers),
        sessions=None,
        folds=folds,
        present=np.ones(len(labels), dtype=bool),
        labels=np.asarray(labels),
        proba=proba,
    )


def right_or_wrong(right, speakers):
    """A system of two classes that is right where asked."""
    labels = np.arange(len(right)) % 2
    predicted = np.where(right, labels, 1 - labels)
    proba = np.full((len(right), 2), 0.2)
    proba[np.arange(len(right)), predicted] = 0.8
    return table(speakers, labels, proba)


def study(rates, n=30, seed=0):
    """A system that is right with the rate of each person."""
    rng = np.random.default_rng(seed)
    speakers = np.repeat([f"s{i:02d}" for i in range(len(rates))], n)
    return right_or_wrong(rng.random(len(speakers)) < np.repeat(rates, n), speakers)


def group(predictions, cells):
    names = sorted(set(predictions.speakers.tolist()))
    return group_people(dict(zip(names, cells, strict=True)))


def gap_of(predictions, cells, **options):
    groups = {"sex": group(predictions, cells)}
    return compare_groups(predictions, "f1_micro", groups, **options)[0]


def test_a_group_that_is_harder_by_a_known_amount_is_found():
    predictions = study([0.9] * 6 + [0.6] * 6, n=200)
    gap = gap_of(predictions, ["f"] * 6 + ["m"] * 6)
    right = predictions.y_pred == predictions.labels
    assert gap.difference == pytest.approx(right[:1200].mean() - right[1200:].mean())
    assert gap.difference == pytest.approx(0.3, abs=0.04)
    assert (gap.family, gap.a, gap.b) == ("by sex", "f", "m")
    # The found grouping and its mirror are the most extreme of 12! / (6! 6!) = 924.
    assert gap.smallest_p == 2 / 924
    assert gap.p == gap.p_adjusted == pytest.approx(2 / 924, abs=0.001)
    assert gap.shows_difference
    for seed in range(1, 5):  # also where fewer ways of this kind were drawn
        assert gap_of(predictions, ["f"] * 6 + ["m"] * 6, seed=seed).p >= gap.smallest_p


def test_the_score_of_a_group_is_that_of_a_study_of_its_people():
    predictions = study([0.9, 0.7, 0.8, 0.5, 0.6, 0.9, 0.8], n=20)
    chosen = predictions.speakers < "s05"
    alone = table(
        predictions.speakers[chosen], predictions.labels[chosen], predictions.proba[chosen]
    )
    score = find_score(score_predictions(alone), "text", "f1_micro")
    groups = {"sex": group(predictions, ["f"] * 5 + ["m"] * 2)}
    own, small = score_groups(predictions, "f1_micro", groups)
    assert (own.value, own.low, own.high, own.n) == (score.value, score.low, score.high, 100)
    assert own.method == score.method
    assert (small.scope, small.group, small.n) == ("by sex", "m", 40)
    assert (small.low, small.high) == (None, None)  # two people


def test_the_p_of_a_gap_is_the_share_of_ways_of_grouping_the_people():
    cells, n = ["f", "f", "m", "m", "x", "x", "lone"], 8
    predictions = study([0.9, 0.8, 0.4, 0.5, 0.7, 0.6, 0.1], n=n)
    gap = gap_of(predictions, cells)
    right = np.reshape(predictions.y_pred == predictions.labels, (7, n)).sum(axis=1)[:6]

    def find_gap(order):
        scores = [Fraction(int(right[list(pair)].sum()), 2 * n) for pair in order]
        return max(scores) - min(scores)

    ways = [find_gap((o[:2], o[2:4], o[4:])) for o in permutations(range(6))]
    found = find_gap(((0, 1), (2, 3), (4, 5)))
    assert gap.difference == pytest.approx(float(found))
    p = sum(way >= found for way in ways) / len(ways)
    assert gap.p == pytest.approx(p, abs=4 * sqrt(p * (1 - p) / 20_000))
    # 90 ways, and three groups of one size: six of them keep the same people together.
    assert gap.smallest_p == pytest.approx(6 / 90)
    assert gap.p >= gap.smallest_p
    assert gap.n_speakers == 6  # a single person is no group
    assert gap.method.endswith("not decidable")


def test_columns_are_adjusted_together_and_one_group_has_no_gap():
    predictions = study([0.9] * 5 + [0.6] * 5, n=60)
    columns = {
        "sex": ["f"] * 5 + ["m"] * 5,
        "hand": ["l", "r"] * 5,
        "land": ["de"] * 10,
        "age": [str(20 + i) for i in range(9)] + [""],
    }
    groups = {column: group(predictions, cells) for column, cells in columns.items()}
    gaps = compare_groups(predictions, "f1_micro", groups)
    assert [gap.family for gap in gaps] == ["by sex", "by hand", "by age"]
    ordered = sorted(gaps, key=lambda gap: gap.p)
    holm = np.maximum.accumulate([(3 - i) * gap.p for i, gap in enumerate(ordered)])
    assert [gap.p_adjusted for gap in ordered] == pytest.approx(np.minimum(holm, 1).tolist())
    assert gaps[2].n_speakers == 9  # nobody's age is guessed


def test_the_observed_groups_are_one_of_the_ways_and_the_seed_decides_the_others():
    predictions = study([0.8] * 12 + [0.5] * 12)
    first, again = (gap_of(predictions, ["f"] * 12 + ["m"] * 12) for _ in range(2))
    assert first == again
    assert first.p == first.smallest_p == 1 / 20_001
    assert gap_of(study([1.0] * 6), ["f"] * 3 + ["m"] * 3).p == 1  # no gap at all


def test_without_a_difference_a_gap_is_shown_in_one_of_twenty_studies():
    """Seven against four people of 10 to 100 utterances: 330 ways."""
    rng, cells = np.random.default_rng(1), ["f"] * 7 + ["m"] * 4
    shown = []
    for _ in range(100):
        rates, n = np.clip(rng.normal(0.7, 0.15, 11), 0, 1), rng.integers(10, 100, 11)
        speakers = np.repeat([f"s{i:02d}" for i in range(11)], n)
        predictions = right_or_wrong(rng.random(n.sum()) < np.repeat(rates, n), speakers)
        shown.append(gap_of(predictions, cells).shows_difference)
    assert 0.01 < np.mean(shown) < 0.11


def test_numbers_are_cut_at_quantiles_of_the_people():
    def cut(*cells):
        found = group_people({f"s{i:02d}": cell for i, cell in enumerate(cells)})
        return {name: len(people) for name, people in found.items()}

    ages = cut(*(str(20 + i) for i in range(20)))
    assert ages == {"20 to 24": 5, "25 to 29": 5, "30 to 34": 5, "35 to 39": 5}
    # Five values or fewer are groups as they are, in the order of the numbers.
    assert list(cut("10", "9", "9.0", "").items()) == [("9", 2), ("10", 1)]
    assert cut("9", "10", "x", "nan") == {"10": 1, "9": 1, "nan": 1, "x": 1}
    # No bin without people.
    assert cut(*["1"] * 18, "2", "3", "4", "5", "6") == {"1": 18, "2 to 6": 5}
    assert cut("", "") == {}


def test_the_risk_curve_is_the_error_among_the_most_confident():
    confidence = np.array([0.9, 0.6, 0.8, 0.7])
    wrong = np.array([0, 1, 1, 0])
    predictions = table(["a", "a", "b", "b"], wrong, np.stack([confidence, 1 - confidence], 1))
    assert risk_curve(predictions) == pytest.approx([0, 1 / 2, 1 / 3, 2 / 4])
    area, low, high, least = score_risk(predictions)
    assert area == pytest.approx((1 / 2 + 1 / 3 + 2 / 4) / 4)
    assert least == pytest.approx((0 + 0 + 1 / 3 + 2 / 4) / 4)
    assert (low, high) == (None, None)  # two people


def test_utterances_of_one_confidence_count_as_the_mean_over_their_orders():
    wrong = np.array([0, 1, 0, 1, 1])
    confidence = np.array([0.9, 0.7, 0.7, 0.7, 0.6])
    predictions = table(list("aabbb"), wrong, np.stack([confidence, 1 - confidence], 1))
    curves = [
        np.cumsum([0, *(wrong[1:4][list(order)]), 1]) / np.arange(1, 6)
        for order in permutations(range(3))
    ]
    assert risk_curve(predictions) == pytest.approx(np.mean(curves, axis=0))


def test_the_threshold_of_a_person_comes_from_the_other_people():
    # Person a is confident and wrong, so the others' threshold answers with errors.
    confidence = np.array([0.9, 0.9, 0.95, 0.85, 0.6, 0.8, 0.7, 0.6])
    wrong = np.array([1, 1, 0, 0, 1, 0, 0, 1])
    speakers = ["a", "a", "b", "b", "b", "c", "c", "c"]
    predictions = table(speakers, wrong, np.stack([confidence, 1 - confidence], 1))
    n_answered, (error, _, _) = choose_answers(predictions, 0.2)
    answered = np.zeros(8, dtype=bool)
    for name in "abc":
        others = [i for i in range(8) if speakers[i] != name]
        kept = [
            c
            for c in confidence[others]
            if np.mean([wrong[i] for i in others if confidence[i] >= c]) <= 0.2
        ]
        for i in range(8):
            if speakers[i] == name and kept:
                answered[i] = confidence[i] >= min(kept)
    assert n_answered == answered.sum()
    assert error == pytest.approx(wrong[answered].mean())
    assert choose_answers(predictions, 0.99)[0] == 8
    alone = table(["a"] * 8, wrong, predictions.proba)
    assert choose_answers(alone, 0.2) == (0, None)


def test_a_set_holds_what_the_quantile_of_the_other_people_allows():
    rng = np.random.default_rng(3)
    speakers = np.repeat(list("abcde"), [3, 9, 4, 6, 2])
    proba = rng.dirichlet(np.ones(N_CLASSES), len(speakers))
    predictions = table(speakers, rng.integers(N_CLASSES, size=len(speakers)), proba)
    sets = make_sets(predictions, 0.4)
    distance = 1 - proba[np.arange(len(speakers)), predictions.labels]
    for name in "abcde":
        mass = sorted(
            (d, Fraction(1, 5 * int((speakers == who).sum())))
            for d, who in zip(distance.tolist(), speakers, strict=True)
            if who != name
        )
        total, quantile = Fraction(0), None
        for d, weight in mass:
            total += weight
            if quantile is None and total >= Fraction(6, 10):
                quantile = d
        own = speakers == name
        expected = 1 - proba[own] <= quantile + 1e-12
        expected[np.arange(own.sum()), proba[own].argmax(axis=1)] = True
        assert (sets[own] == expected).all()


@pytest.mark.parametrize(("chosen", "made"), [(0.19, False), (0.2, True), (0.5, True)])
def test_no_set_is_made_for_an_error_that_so_few_people_cannot_keep_to(chosen, made):
    rng = np.random.default_rng(0)
    proba = rng.dirichlet(np.ones(N_CLASSES), 50)
    labels = rng.integers(N_CLASSES, size=50)
    sets = make_sets(table(np.repeat(list("abcde"), 10), labels, proba), chosen)
    assert (sets is not None) is made


def simulate_people(rng, n_people):
    """People whose classes lie elsewhere for each, the more so the less they say."""
    sizes = np.where(rng.random(n_people) < 0.5, 8, 60)
    who = np.repeat(np.arange(n_people), sizes)
    labels = rng.integers(N_CLASSES, size=len(who))
    spread = np.where(sizes < 20, 1.8, 0.3)[:, np.newaxis]
    shifts = spread * rng.normal(0, 1, (n_people, N_CLASSES))
    noise = rng.normal(0, 1, (len(who), N_CLASSES))
    return who, labels, 1.5 * np.eye(N_CLASSES)[labels] + shifts[who] + noise


def predict_by_means(x, labels, new):
    """Probabilities of a model that learns the mean of every class."""
    means = np.array([x[labels == code].mean(axis=0) for code in range(N_CLASSES)])
    return softmax(-((new[:, np.newaxis] - means) ** 2).sum(axis=2) / 2, axis=1)


def test_sets_cover_people_at_the_stated_level():
    """A person of each study by its sets, and by those that take utterances as exchangeable."""
    rng = np.random.default_rng(0)
    n_people, chosen, inside, plain = 6, 0.2, [], []
    for _ in range(300):
        who, labels, x = simulate_people(rng, n_people)
        proba = np.zeros((len(who), N_CLASSES))
        for person in range(n_people):
            own = who == person
            proba[own] = predict_by_means(x[~own], labels[~own], x[own])
        sets = make_sets(table(who.astype(str), labels, proba), chosen)
        rows = np.arange(len(who))
        covered = sets[rows, labels]
        rates = np.bincount(who, covered) / np.bincount(who)
        # By arithmetic the mean over people keeps to the level in every study.
        assert rates.mean() >= 1 - chosen - 1e-9
        inside.append(rates[0])
        distance, own = 1 - proba[rows, labels], who == 0
        top = proba.argmax(axis=1) == labels
        quantile = np.quantile(distance[~own], 1 - chosen)
        plain.append(((distance <= quantile) | top)[own].mean())
    error = np.std(inside) / np.sqrt(300)
    assert np.mean(inside) >= 1 - chosen - 2 * error
    # Calibrated over utterances, as if all were exchangeable, sets miss too often.
    assert np.mean(plain) < 1 - chosen - 3 * np.std(plain) / np.sqrt(300)
