"""The outer loop: nothing of a held-out person reaches the models that predict them."""

import base64
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from toolkit.models import Features
from toolkit.models.boosters import make_training_data
from toolkit.validation.folds import make_folds, speaker_folds
from toolkit.validation.ledger import LeakageError, audit_entries
from toolkit.validation.nested import (
    Protocol,
    gather_predictions,
    majority_ledgers,
    majority_predictions,
    run_logistic_unit,
    run_unit,
)
from toolkit.validation.search import SearchOptions

OPTIONS = SearchOptions(
    imbalance=("none", "smote"), screening=("none", "ftest-6"), n_trials=4, max_rounds=10
)


def make_features(values, present=None):
    if present is None:
        present = np.ones(len(values), dtype=bool)
    return Features(
        values=values.astype(np.float32),
        names=tuple(f"text__value__{i:04d}" for i in range(values.shape[1])),
        present=present,
        presets={"rich": np.arange(values.shape[1])},
    )


@pytest.fixture(scope="module")
def values(manifest):
    values = np.random.default_rng(0).normal(size=(len(manifest), 12)).astype(np.float32)
    values[:, :3] += manifest.labels[:, None]
    return values


@pytest.fixture(scope="module")
def fold(manifest):
    return speaker_folds(manifest)[2]


def run(manifest, values, fold, **options):
    features = make_features(values, options.pop("present", None))
    return run_unit(
        manifest,
        features,
        fold,
        system="text",
        protocol=Protocol(),
        options=replace(OPTIONS, **options),
    )


@pytest.fixture(scope="module", params=["lightgbm", "xgboost"])
def boosters(request):
    return (request.param,)


@pytest.fixture(scope="module")
def unit(manifest, values, fold, boosters):
    return run(manifest, values, fold, boosters=boosters)


def model_text(unit):
    with TemporaryDirectory() as folder:
        unit.booster.save(Path(folder) / "model")
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def assert_same_model(one, other):
    assert one.search == other.search
    assert model_text(one) == model_text(other)
    assert np.array_equal(one.inner_proba, other.inner_proba)
    assert one.record == other.record
    assert one.inner_parts.keys() == other.inner_parts.keys()
    for part, proba in one.inner_parts.items():
        assert np.array_equal(proba, other.inner_parts[part])


def test_labels_of_held_out_people_change_nothing(manifest, values, fold, unit, boosters):
    labels = manifest.labels.copy()
    labels[fold.test] = (labels[fold.test] + 1) % 4

    other = run(replace(manifest, labels=labels), values, fold, boosters=boosters)

    assert_same_model(unit, other)
    assert np.array_equal(unit.proba, other.proba)


def test_features_of_held_out_people_change_no_model(manifest, values, fold, unit, boosters):
    # Bin edges taken from all rows would move with these.
    noise = values.copy()
    noise[fold.test] = 1e6 * np.random.default_rng(1).normal(size=noise[fold.test].shape)

    other = run(manifest, noise, fold, boosters=boosters)

    assert_same_model(unit, other)
    # Means and scales of the linear part are among the files compared.
    assert "model.linear.npy" in model_text(unit)
    assert not np.array_equal(unit.parts["linear"], other.parts["linear"])


def test_the_ledger_of_a_unit_passes_its_audit(manifest, fold, unit):
    assert audit_entries("text", fold, unit.ledger, manifest.speakers) == []
    roles = {entry["role"] for entry in unit.ledger}
    assert {"train", "validate", "early stop", "bin edges", "choose"} <= roles


def test_the_parents_of_the_refits_rows_are_in_the_ledger(manifest, values, fold):
    unit = run(manifest, values, fold, imbalance=("smote",), screening=("none",), n_trials=1)
    counts = np.bincount(manifest.labels[fold.train])

    recorded = {
        entry["fit"]: np.flatnonzero(
            np.unpackbits(
                np.frombuffer(base64.b64decode(entry["rows"]), np.uint8), count=len(manifest)
            )
        )
        for entry in unit.ledger
        if entry["fit"].startswith("refit: ")
    }

    # All features are there, so each class has one group: all its training rows.
    expected = {
        f"refit: {counts.max() - counts[k]} rows made of class {name}": np.intersect1d(
            fold.train, np.flatnonzero(manifest.labels == k)
        ).tolist()
        for k, name in enumerate(manifest.classes)
        if counts[k] < counts.max()
    }
    assert len(expected) == 3
    assert {fit: rows.tolist() for fit, rows in recorded.items()} == expected


def test_the_majority_is_recorded_and_refused_like_any_other(manifest, fold):
    (entry,) = majority_ledgers(manifest, [fold], "speaker")[fold.number]
    leaking = replace(fold, train=np.append(fold.train, fold.test[0]))

    assert (entry["role"], entry["n_rows"]) == ("train", len(fold.train))
    with pytest.raises(LeakageError, match=r"'class shares' of majority/02"):
        majority_ledgers(manifest, [leaking], "speaker")


def test_inner_probabilities_cover_the_training_rows_in_order(fold, unit):
    assert unit.inner_rows.tolist() == fold.train.tolist()
    assert np.allclose(unit.inner_proba.sum(axis=1), 1)


def test_a_fold_that_trains_on_a_held_out_person_stops_the_run(manifest, values, fold):
    leaking = replace(fold, train=np.append(fold.train, fold.test[0]))

    with pytest.raises(LeakageError, match="held out"):
        run(manifest, values, leaking)


def test_an_absent_row_gets_the_class_shares_of_its_training_fold(
    manifest, values, fold, boosters
):
    present = np.ones(len(manifest), dtype=bool)
    present[fold.test[:2]] = False
    holes = values.copy()
    holes[~present] = np.nan

    unit = run(manifest, holes, fold, present=present, boosters=boosters)

    shares = np.bincount(manifest.labels[fold.train], minlength=4) / len(fold.train)
    assert unit.present.tolist() == present[fold.test].tolist()
    assert np.allclose(unit.proba[:2], shares)
    assert not np.allclose(unit.proba[2], shares)


def test_an_absent_row_gets_the_class_shares_from_the_logistic_baseline_too(
    manifest, values, fold
):
    present = np.ones(len(manifest), dtype=bool)
    present[fold.test[:2]] = False

    unit = run_logistic_unit(
        manifest,
        make_features(np.where(present[:, None], values, np.nan), present),
        fold,
        system="text-logistic",
        statistics="rich",
        metric="f1_micro",
        protocol=Protocol(),
    )

    shares = np.bincount(manifest.labels[fold.train], minlength=4) / len(fold.train)
    assert np.allclose(unit.proba[:2], shares)
    assert not np.allclose(unit.proba[2:], shares)


def validated(unit, purpose):
    """Rows that each fit of a purpose was validated on, as the ledger has them."""
    return {
        entry["rows"]
        for entry in unit.ledger
        if entry["fit"].startswith(purpose) and entry["role"] == "validate"
    }


def test_what_weighs_systems_is_predicted_on_other_folds_than_those_that_chose(unit):
    assert len(validated(unit, "inner")) == len(validated(unit, "out-of-fold")) == 3
    assert not validated(unit, "inner") & validated(unit, "out-of-fold")


def test_where_content_is_held_out_no_fit_of_a_unit_shares_it(manifest, values):
    scripted = replace(manifest, contents=np.array([f"s{k % 7}" for k in range(len(values))]))
    fold = make_folds(scripted, "session+content", seed=0, content_parts=2)[1]
    groups = scripted.groups("session+content")
    shared = {"system": "text", "protocol": Protocol("session+content", 2, 0, 2)}
    options = replace(OPTIONS, n_trials=1)

    unit = run_unit(scripted, make_features(values), fold, options=options, **shared)

    assert audit_entries("text", fold, unit.ledger, groups) == []
    assert unit.record["inner_folds"] == 4
    assert len(validated(unit, "out-of-fold")) == 4
    assert np.array_equal(unit.inner_rows, fold.train)
    # Another speaker's row of the tested content stops the run.
    same = np.flatnonzero(scripted.contents == scripted.contents[fold.test[0]])
    leaking = replace(fold, train=np.union1d(fold.train, np.setdiff1d(same, fold.test)[:1]))
    with pytest.raises(LeakageError, match="held out"):
        run_unit(scripted, make_features(values), leaking, options=options, **shared)


def test_where_sessions_are_held_out_no_inner_fold_splits_one(manifest, values):
    fold = make_folds(manifest, "session", seed=0)[1]
    unit = run_unit(
        manifest,
        make_features(values),
        fold,
        system="text",
        protocol=Protocol(outer="session"),
        options=replace(OPTIONS, n_trials=1),
    )

    assert audit_entries("text", fold, unit.ledger, manifest.sessions) == []
    partner = replace(fold, train=np.append(fold.train, fold.test[-1]))
    with pytest.raises(LeakageError, match="held out"):
        run_unit(
            manifest,
            make_features(values),
            replace(partner, test=fold.test[:-1]),
            system="text",
            protocol=Protocol(outer="session"),
            options=replace(OPTIONS, n_trials=1),
        )


def test_a_modality_that_is_missing_for_nearly_all_is_refused(manifest, values, fold):
    present = np.zeros(len(manifest), dtype=bool)
    present[fold.train[:1]] = True

    with pytest.raises(ValueError, match=r"text/02 can learn from 1 utterances of 1 class"):
        run(manifest, values, fold, present=present)


def test_a_class_absent_from_training_keeps_its_column_at_zero(
    manifest, values, fold, boosters
):
    labels = manifest.labels.copy()
    labels[fold.train] = np.where(labels[fold.train] == 2, 3, labels[fold.train])

    unit = run(replace(manifest, labels=labels), values, fold, boosters=boosters)

    assert unit.record["absent_classes"] == [manifest.classes[2]]
    assert (unit.proba[:, 2] == 0).all()
    assert unit.proba.shape[1] == 4


def test_the_logistic_baseline_is_blind_to_held_out_people(manifest, values, fold):
    labels = manifest.labels.copy()
    labels[fold.test] = 0
    one, other = (
        run_logistic_unit(
            each,
            make_features(values),
            fold,
            system="text-logistic",
            statistics="rich",
            metric="f1_micro",
            protocol=Protocol(),
        )
        for each in (manifest, replace(manifest, labels=labels))
    )

    assert np.array_equal(one.proba, other.proba)
    assert audit_entries("text-logistic", fold, one.ledger, manifest.speakers) == []


def test_majority_is_the_largest_class_of_its_training_fold(manifest):
    folds = speaker_folds(manifest)

    majority = majority_predictions(manifest, folds)

    for fold in folds:
        counts = np.bincount(manifest.labels[fold.train], minlength=4)
        assert (majority.y_pred[fold.test] == counts.argmax()).all()
        assert np.allclose(majority.proba[fold.test], counts / counts.sum())


def test_a_row_that_is_tested_twice_is_refused(manifest):
    fold = speaker_folds(manifest)[0]
    proba, present = np.full((len(fold.test), 4), 0.25), np.ones(len(fold.test), dtype=bool)

    with pytest.raises(ValueError, match="test some rows twice"):
        gather_predictions(manifest, [fold, fold], "text", [proba, proba], [present, present])


def test_what_very_wide_tables_were_reduced_to_is_in_the_record(manifest, values, fold):
    reduced = {"text": {"rich": {"statistics": "basic", "n_columns": 12, "n_asked": 30}}}
    features = replace(make_features(values), reduced=reduced)
    given = {"system": "text", "protocol": Protocol()}

    boosted = run_unit(manifest, features, fold, options=replace(OPTIONS, n_trials=1), **given)
    logistic = run_logistic_unit(
        manifest, features, fold, statistics="rich", metric="f1_micro", **given
    )

    assert boosted.record["reduced"] == logistic.record["reduced"] == reduced


@pytest.mark.parametrize("run_one", [run_unit, run_logistic_unit])
def test_features_of_other_utterances_are_refused(manifest, values, fold, run_one):
    longer = make_features(np.vstack([values, values[:1]]))
    options = {"options": OPTIONS}
    if run_one is run_logistic_unit:
        options = {"statistics": ("rich",), "metric": "f1_micro"}

    with pytest.raises(ValueError, match=f"have {len(values) + 1} rows for {len(values)} utte"):
        run_one(manifest, longer, fold, system="text", protocol=Protocol(), **options)


@pytest.mark.parametrize(
    ("asked", "tried"),
    [
        (("none", "ftest-6"), {"none", "ftest-6"}),
        (("ftest-2000", "ftest-6"), {"none", "ftest-6"}),
        (("ftest-2000", "none"), {"none"}),
        (("ftest-2000",), {"none"}),
        (("ftest-6",), {"ftest-6"}),
    ],
)
def test_a_screen_of_every_column_counts_as_none(manifest, values, fold, asked, tried):
    unit = run(manifest, values, fold, screening=asked, n_trials=4, racing=False)

    assert {trial["params"]["screening"] for trial in unit.search.trials} == tried


def test_units_of_a_very_wide_modality_are_those_of_its_screen(
    manifest, values, fold, monkeypatch
):
    features = replace(make_features(values), screen="ftest-5")
    options = replace(OPTIONS, screening=("none",), n_trials=1)
    given = {"system": "text", "protocol": Protocol()}
    widths = []

    def count(kind, X, *args, **named):
        widths.append(X.shape[1])
        return make_training_data(kind, X, *args, **named)

    for module in ("models.preparation", "validation.fits"):
        monkeypatch.setattr(f"toolkit.{module}.make_training_data", count)

    unit = run_unit(manifest, features, fold, options=options, **given)

    asked = run(manifest, values, fold, screening=("ftest-5",), n_trials=1)
    assert unit.search.params["screening"] == "ftest-5"
    assert np.array_equal(unit.proba, asked.proba)
    assert model_text(unit) == model_text(asked)
    assert unit.ledger == asked.ledger
    assert set(widths) == {5}  # nothing bins all columns
    assert unit.record == asked.record | {"screened": "ftest-5"}


def test_the_baseline_of_a_very_wide_modality_is_screened_in_each_fit(manifest, values, fold):
    given = {"system": "text-logistic", "protocol": Protocol()}
    given |= {"statistics": "rich", "metric": "f1_micro"}

    features = replace(make_features(values), screen="ftest-3")

    unit = run_logistic_unit(manifest, features, fold, **given)

    kept = run_logistic_unit(manifest, make_features(values[:, :3]), fold, **given)

    # The first three columns alone hold a signal.
    assert np.array_equal(unit.proba, kept.proba)
    screened, trained = (
        [(entry["fit"], entry["rows"]) for entry in unit.ledger if entry["role"] == role]
        for role in ("screen", "train")
    )
    assert screened == [entry for entry in trained if entry[0] != "class shares"]
    assert not [entry for entry in kept.ledger if entry["role"] == "screen"]
    assert (unit.record["n_features"], unit.record["screened"]) == (3, "ftest-3")


def test_held_out_people_choose_no_column_of_the_baseline(manifest, values, fold):
    # Without the held-out rows the last column is the worst of all, with them the fourth.
    values = values.copy()
    values[fold.train, 11] = np.random.default_rng(0).permutation(len(fold.train))
    planted = values.copy()
    planted[fold.test, 11] = 1e4 * manifest.labels[fold.test]

    one, other = (
        run_logistic_unit(
            manifest,
            replace(make_features(each), screen="ftest-4"),
            fold,
            system="text-logistic",
            statistics="rich",
            metric="f1_micro",
            protocol=Protocol(),
        )
        for each in (values, planted)
    )

    assert np.array_equal(one.proba, other.proba)


def test_the_record_says_how_trials_were_proposed_and_of_no_reduction(unit):
    assert unit.record["sampler"] == "tpe"
    assert "reduced" not in unit.record


@pytest.mark.parametrize("screening", ["mutual-6", "gain-6"])
def test_a_screen_never_sees_labels_of_held_out_people(manifest, values, fold, screening):
    labels = manifest.labels.copy()
    labels[fold.test] = (labels[fold.test] + 1) % 4
    options = {"screening": (screening,), "n_trials": 1}

    one = run(manifest, values, fold, **options)
    other = run(replace(manifest, labels=labels), values, fold, **options)

    assert_same_model(one, other)
    assert "screen" in {entry["role"] for entry in one.ledger}
