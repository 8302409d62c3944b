"""The worth of choices: what was planted in the trials' scores is found, others held equal."""

import numpy as np
import pytest

from toolkit.validation import SearchResult, compute_worth

PLANTED = {"none": 0.0, "ftest-500": -0.06, "weights": 0.02, "smote": 0.01}


def make_searches(n_folds=6, n_trials=30, *, sign=1, noise=0.0, seed=0, slope=0.05):
    rng = np.random.default_rng(seed)
    searches = []
    for fold in range(n_folds):
        trials = []
        for number in range(n_trials):
            # Screened trials take larger steps, which are better: alone they would flatter it.
            screening = "none" if number == 0 else str(rng.choice(["none", "ftest-500"]))
            imbalance = "none" if number == 0 else str(rng.choice(["none", "weights", "smote"]))
            step = float(np.exp(rng.normal() + 2 * (screening != "none")))
            n_features = 500 if screening != "none" else 10_000
            score = 0.5 + 0.1 * fold + PLANTED[screening] + PLANTED[imbalance]
            score += slope * np.log(step) + noise * rng.normal()
            params = {
                "booster": "lightgbm",
                "statistics": "rich",
                "screening": screening,
                "imbalance": imbalance,
                "learning_rate": step,
                "feature_fraction": 30 / n_features,
                "extra_trees": bool(rng.integers(2)),
            }
            trials.append({"number": number, "first_score": sign * score, "params": params})
        best = max(trials, key=lambda trial: sign * trial["first_score"])
        searches.append(SearchResult(best["params"], 10, 0.5, tuple(trials), "trials"))
    return searches


@pytest.mark.parametrize(("metric", "sign"), [("f1_micro", 1), ("log_loss", -1)])
def test_planted_worths_are_found_whichever_way_the_metric_points(metric, sign):
    rows = compute_worth(make_searches(sign=sign), metric=metric)

    found = {(row.choice, row.value): row.worth for row in rows}
    assert found == pytest.approx(
        {
            ("screening", "none"): 0,
            ("screening", "ftest-500"): -0.06,
            ("imbalance", "none"): 0,
            ("imbalance", "weights"): 0.02,
            ("imbalance", "smote"): 0.01,
        }
    )


def test_trials_and_choices_are_counted_over_folds():
    searches = make_searches()

    rows = compute_worth(searches, metric="f1_micro")

    for choice in ("screening", "imbalance"):
        mine = [row for row in rows if row.choice == choice]
        assert sum(row.n_trials for row in mine) == 6 * 30
        assert sum(row.n_chosen for row in mine) == 6
        for row in mine:
            chosen = [s for s in searches if s.params[choice] == row.value]
            assert (row.n_chosen, row.n_folds) == (len(chosen), 6)


def test_intervals_cover_what_was_planted_and_narrow_with_less_noise():
    loud, quiet = (
        next(
            row
            for row in compute_worth(make_searches(8, noise=noise), metric="f1_micro")
            if row.value == "ftest-500"
        )
        for noise in (0.02, 0.002)
    )

    assert loud.low < -0.06 < loud.high
    assert quiet.high - quiet.low < (loud.high - loud.low) / 3


def test_few_folds_have_no_interval_and_the_first_candidate_never_has():
    few = compute_worth(make_searches(3), metric="f1_micro")
    many = compute_worth(make_searches(), metric="f1_micro")

    assert {row.low for row in few} == {None}
    assert [row.value for row in many if row.low is None] == ["none", "none"]


def test_a_choice_with_one_candidate_has_no_worth():
    names = {row.choice for row in compute_worth(make_searches(), metric="f1_micro")}

    assert names == {"screening", "imbalance"}


def test_trials_without_a_first_score_count_for_nothing():
    searches = make_searches()
    for search in searches:
        for trial in search.trials:
            trial.pop("first_score")

    assert compute_worth(searches, metric="f1_micro") == []


def test_over_a_whole_grid_a_worth_is_the_difference_of_mean_scores():
    rng = np.random.default_rng(3)
    searches = []
    for fold in range(5):
        points = [(rate, leaves) for rate in (0.1, 0.2, 0.4) for leaves in (4, 8)]
        trials = [
            {
                "number": number,
                "first_score": fold + rng.normal(),
                "params": {
                    "booster": "lightgbm",
                    "statistics": "rich",
                    "screening": "none",
                    "imbalance": "none",
                    "learning_rate": rate,
                    "num_leaves": leaves,
                    "min_data_in_leaf": 10 + fold,
                },
            }
            for number, (rate, leaves) in enumerate(points)
        ]
        searches.append(SearchResult(trials[0]["params"], 10, 0.5, tuple(trials), "grid"))
    trials = [trial for search in searches for trial in search.trials]

    rows = compute_worth(searches, metric="f1_micro", also=["learning_rate", "num_leaves"])

    def mean(name, value):
        return np.mean([t["first_score"] for t in trials if t["params"][name] == value])

    assert [(row.choice, row.value) for row in rows] == [
        ("learning_rate", "0.1"),
        ("learning_rate", "0.2"),
        ("learning_rate", "0.4"),
        ("num_leaves", "4"),
        ("num_leaves", "8"),
    ]
    for row in rows:
        first = 0.1 if row.choice == "learning_rate" else 4
        difference = mean(row.choice, float(row.value)) - mean(row.choice, first)
        assert row.worth == pytest.approx(difference)


def test_a_parameter_of_one_booster_has_no_value_in_the_others_trials():
    def trial(number, booster, own, score):
        shared = {"statistics": "rich", "screening": "none", "imbalance": "none"}
        params = {"booster": booster} | shared | own
        return {"number": number, "first_score": score, "params": params}

    trials = (
        trial(0, "lightgbm", {"num_leaves": 4}, 0.5),
        trial(1, "lightgbm", {"num_leaves": 8}, 0.6),
        trial(2, "xgboost", {"max_depth": 2}, 0.3),
        trial(3, "xgboost", {"max_depth": 3}, 0.2),
    )
    search = SearchResult(trials[1]["params"], 10, 0.5, trials, "grid")

    rows = compute_worth([search], metric="f1_micro", also=["max_depth", "num_leaves"])

    found = {(row.choice, row.value): (row.worth, row.n_trials, row.n_chosen) for row in rows}
    assert found["num_leaves", "8"] == (pytest.approx(0.1), 1, 1)
    assert found["max_depth", "3"] == (pytest.approx(-0.1), 1, 0)
    assert found["booster", "xgboost"] == (pytest.approx(-0.2), 2, 0)
