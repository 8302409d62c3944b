from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pytest

from toolkit.fusion import LATE_METHODS, majority_vote, soft_vote
from toolkit.fusion.fuse import (
    FusionRecord,
    _make_base_predictions,
    fusion_records,
)
from toolkit.validation.ledger import LeakageError, audit_entries
from toolkit.validation.predictions import format_predictions


@pytest.fixture(scope="module")
def result(study, fuse):
    return fuse(study, early=study.early)


def written(result):
    """All that a study would write of a fusion, as text."""
    tables = [*result.predictions.values(), *result.offsets.values()]
    learnt = [result.describe(), sorted(result.ledgers.items()), result.records]
    return "".join(map(format_predictions, tables)) + repr(learnt)


def test_every_late_system_is_made(result):
    assert list(result.predictions) == ["best-single", *LATE_METHODS]
    assert all(name == table.system for name, table in result.predictions.items())


def test_every_system_but_the_reference_has_its_offset_variants(result):
    systems = ["audio", "early", "text", "visual", *LATE_METHODS]
    expected = [f"{system}-offset-{end}" for system in systems for end in ("f1", "uar")]

    assert list(result.offsets) == expected
    assert [name for name in result.describe() if "offset" in name] == expected
    assert all(name == table.system for name, table in result.offsets.items())


def test_the_rules_are_those_of_the_plain_functions(study, result):
    priors = study.priors()
    tables = [voter.predictions for voter in study.voters]

    expected = {"vote": majority_vote(tables, priors), "soft": soft_vote(tables, priors)}

    for system, table in expected.items():
        assert format_predictions(result.predictions[system]) == format_predictions(table)


def test_held_out_rows_are_pooled_by_their_parts_and_the_weights_of_their_fold(study, result):
    pooled, priors = result.predictions["log-pool"], study.priors()
    by_name = {voter.system: voter for voter in [*study.voters, study.early]}

    for fold in study.folds:
        weights = result.describe()["log-pool"][fold.name]["weights"]
        assert list(weights) == [
            "audio (trees)",
            "early (linear)",
            "early (trees)",
            "text (trees)",
            "visual (trees)",
        ]
        product = np.ones((len(fold.test), 4))
        for member, weight in weights.items():
            system, part = member.removesuffix(")").split(" (")
            present = by_name[system].predictions.present[fold.test]
            proba = by_name[system].parts[fold.number][part]
            product *= np.where(present[:, None], proba, priors[fold.number]) ** weight
        expected = product / product.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(pooled.proba[fold.test], expected, rtol=1e-10)
        assert pooled.y_pred[fold.test].tolist() == expected.argmax(axis=1).tolist()


def test_the_weights_of_the_pool_differ_between_folds_and_members(result):
    weights = [list(r["weights"].values()) for r in result.describe()["log-pool"].values()]

    assert np.ptp(weights, axis=0).min() > 0.001
    assert np.ptp(weights, axis=1).min() > 0.05


def test_every_system_is_aligned_with_the_voters(study, result):
    for table in [*result.predictions.values(), *result.offsets.values()]:
        study.early.predictions.check_aligned(table)


def test_the_order_of_voters_and_methods_changes_no_byte(study, result, fuse):
    first, *others = study.voters
    for voters in ([*others, first], study.voters[::-1]):
        again = fuse(study, voters, study.early, methods=LATE_METHODS[::-1])

        assert written(again) == written(result)


def test_only_what_is_asked_for_is_made(study, fuse):
    result = fuse(study, methods=("soft",))

    assert list(result.predictions) == ["best-single", "soft"]
    asked = {"best-single", *result.offsets}
    assert set(result.describe()) == set(result.ledgers) == asked


def test_a_single_modality_gets_its_offset_variants(study, fuse):
    result = fuse(study, study.voters[1:2], methods=())

    assert list(result.offsets) == ["text-offset-f1", "text-offset-uar"]
    assert not result.predictions
    assert result.records == ()


def test_eight_modalities_and_early_are_fused(generate, fuse):
    large = generate(n=60, n_speakers=3, n_voters=8)

    result = fuse(large, early=large.early)

    assert list(result.predictions) == ["best-single", *LATE_METHODS]
    assert set(result.describe()["weighted"]["00"]["weights"]) == {
        voter.system for voter in large.voters
    }
    assert len(result.describe()["log-pool"]["00"]["weights"]) == 8 + 2


def test_two_voters_are_enough(generate, fuse):
    small = generate(n=60, n_classes=2, n_speakers=3, n_voters=2)

    result = fuse(small, early=small.early)

    assert list(result.predictions) == ["best-single", *LATE_METHODS]


def test_no_held_out_label_touches_a_decision(study, result, fuse):
    def turn(voter):
        return replace(voter, predictions=replace(voter.predictions, labels=3 - study.labels))

    turned = fuse(study, [turn(voter) for voter in study.voters], turn(study.early))

    assert turned.describe() == result.describe()
    for kind in ("predictions", "offsets"):
        for system, table in getattr(turned, kind).items():
            expected = getattr(result, kind)[system]
            assert table.proba.tobytes() == expected.proba.tobytes()
            assert table.y_pred.tolist() == expected.y_pred.tolist()


def test_what_absent_voters_said_is_never_read(study, result, fuse):
    def change(proba, present):
        return np.where(present[:, None], proba, [0.97, 0.01, 0.01, 0.01])

    def change_parts(parts, present):
        return {name: change(proba, present) for name, proba in parts.items()}

    def garble(voter):
        table = voter.predictions
        return replace(
            voter,
            inner={
                fold: replace(
                    one,
                    proba=change(one.proba, one.present),
                    parts=change_parts(one.parts, one.present),
                )
                for fold, one in voter.inner.items()
            },
            predictions=replace(table, proba=change(table.proba, table.present)),
            parts={
                fold: change_parts(parts, table.present[table.folds == fold])
                for fold, parts in voter.parts.items()
            },
        )

    garbled = [garble(voter) for voter in study.voters]

    again = fuse(study, garbled, study.early)

    for system in LATE_METHODS:
        ours, theirs = again.predictions[system], result.predictions[system]
        assert ours.proba.tobytes() == theirs.proba.tobytes()


def test_the_audit_of_every_late_system_finds_no_leak(study, result):
    learnt = {"best-single", "weighted", "stacked", "log-pool"}
    assert set(result.ledgers) == {*learnt, *result.offsets}
    for system, entries in result.ledgers.items():
        for fold in study.folds:
            problems = audit_entries(system, fold, entries[fold.number], study.groups)
            assert not [one for one in problems if "no training was recorded" not in one]


def test_fused_systems_are_calibrated_on_all_rows_that_any_voter_saw(study, result):
    for fold in study.folds:
        seen = np.any([voter.inner[fold.number].present for voter in study.voters], axis=0)
        for system in ("vote", "soft", "weighted", "stacked"):
            (entry,) = result.ledgers[f"{system}-offset-uar"][fold.number]
            assert entry["n_rows"] == seen.sum() < len(fold.train)


def test_training_rows_of_a_held_out_speaker_stop_the_fusion(study, fuse):
    stolen = study.folds[0].test[:1]

    def leak(voter):
        first = voter.inner[0]
        rows = np.sort(np.append(first.rows[1:], stolen))
        return replace(voter, inner={**voter.inner, 0: replace(first, rows=rows)})

    with pytest.raises(LeakageError, match="held out utterance"):
        fuse(study, [leak(voter) for voter in study.voters], methods=("soft",))


@pytest.mark.parametrize("n", [0, 9])
def test_no_voter_and_nine_modalities_are_refused(generate, n, fuse):
    study = generate(n=30, n_speakers=3, n_voters=9)

    with pytest.raises(ValueError, match=f"Got {n} modalities; expected 1 to 8"):
        fuse(study, study.voters[:n])


SPEAKERS = ["anna", "anna", "anna", "bo", "bo", "bo"]
LABELS = [0, 1, 1, 0, 0, 1]


def decides(say, system, classes, present=None):
    proba = np.full((6, 3), 0.2)
    proba[np.arange(6), classes] = 0.6
    return say(system, proba, labels=LABELS, present=present, speakers=SPEAKERS)


@pytest.fixture
def records(say):
    audio = decides(say, "audio", [0, 1, 0, 1, 0, 2], [True] * 5 + [False])
    text = decides(say, "text", [0, 0, 0, 0, 1, 1])
    visual = decides(say, "visual", [1, 2, 0, 0, 2, 1])
    best = decides(say, "best-single", [0, 0, 0, 0, 1, 1])
    vote = decides(say, "vote", [0, 1, 0, 0, 0, 1])
    soft = decides(say, "soft", [1, 1, 1, 1, 0, 1])
    return fusion_records([visual, text, audio], [vote, soft], best)


def find(records, quantity, system, reference=""):
    """Counts over all, a, b, c, anna and bo, and what they were counted among."""
    found = [
        record
        for record in records
        if (record.quantity, record.system, record.reference) == (quantity, system, reference)
    ]
    scopes = [(record.scope, record.group) for record in found]
    assert scopes == [
        ("all", ""),
        *(("class", name) for name in "abc"),
        *(("speaker", name) for name in ("anna", "bo")),
    ]
    return [record.value for record in found], [record.n for record in found]


ALL = [6, 3, 3, 0, 3, 3]


def test_fixed_and_broken_are_held_against_best_single(records):
    # best-single errs in rows 1, 2 and 4; vote mends 1 and 4, soft 1, 2 and 4 but spoils 0, 3.
    assert find(records, "fixed", "vote", "best-single") == ([2, 1, 1, 0, 1, 1], ALL)
    assert find(records, "broken", "vote", "best-single") == ([0] * 6, ALL)
    assert find(records, "fixed", "soft", "best-single") == ([3, 1, 2, 0, 2, 1], ALL)
    assert find(records, "broken", "soft", "best-single") == ([2, 2, 0, 0, 1, 1], ALL)


def test_the_oracle_is_right_where_any_modality_is(records):
    assert find(records, "right", "oracle") == ([5, 3, 2, 0, 2, 3], ALL)


def test_ties_are_where_no_class_has_most_votes(records):
    # Three ways in rows 1 and 4; in row 5 audio is absent and the other two agree.
    assert find(records, "ties", "vote") == ([2, 1, 1, 0, 1, 1], ALL)
    assert find(records, "ties_right", "vote") == ([2, 1, 1, 0, 1, 1], [2, 1, 1, 0, 1, 1])


def test_pairs_are_compared_where_both_are_present(records):
    both = [5, 3, 2, 0, 3, 2]
    assert find(records, "agreement", "audio", "text") == ([2, 1, 1, 0, 2, 0], both)
    assert find(records, "double_fault", "audio", "text") == ([1, 0, 1, 0, 1, 0], both)
    assert find(records, "agreement", "audio", "visual") == ([1, 0, 1, 0, 1, 0], both)
    assert find(records, "agreement", "text", "visual") == ([3, 1, 2, 0, 1, 2], ALL)
    assert find(records, "double_fault", "text", "visual") == ([3, 1, 2, 0, 2, 1], ALL)


def test_absent_modalities_are_counted(records):
    assert find(records, "absent", "audio") == ([1, 0, 1, 0, 0, 1], ALL)
    assert find(records, "absent", "text") == ([0] * 6, ALL)
    assert find(records, "absent", "vote") == ([0] * 6, ALL)


def test_nothing_is_counted_twice(records):
    keys = [(r.system, r.reference, r.scope, r.group, r.quantity) for r in records]

    assert len(set(keys)) == len(keys)


def test_without_a_vote_there_are_no_ties(say):
    tables = [decides(say, name, LABELS) for name in ("audio", "text", "best-single")]

    quantities = {record.quantity for record in fusion_records(tables[:2], [], tables[2])}

    assert quantities == {"absent", "right", "agreement", "double_fault"}


def test_the_columns_of_the_file_are_the_fields():
    names = [field.name for field in fields(FusionRecord)]

    assert names == ["system", "reference", "scope", "group", "quantity", "value", "n"]


def make_units(voter, system="text"):
    return [
        SimpleNamespace(
            system=system,
            fold=fold,
            inner_rows=inner.rows,
            inner_proba=inner.proba,
            inner_present=inner.present,
            inner_parts=inner.parts,
            parts=voter.parts[fold],
        )
        for fold, inner in voter.inner.items()
    ]


def test_a_voter_is_made_from_finished_units(study):
    voter = study.voters[1]

    made = _make_base_predictions(
        voter.predictions, make_units(voter), labels=study.labels, groups=study.groups
    )

    for fold, inner in made.inner.items():
        for part in ("rows", "labels", "groups", "present"):
            assert getattr(inner, part).tolist() == getattr(voter.inner[fold], part).tolist()
        assert not inner.present.all()
        assert inner.parts == voter.inner[fold].parts
    assert made.parts == voter.parts
