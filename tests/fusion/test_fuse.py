from dataclasses import replace

import numpy as np
import pytest

from toolkit.fusion import LATE_METHODS, fuse_all, majority_vote, soft_vote
from toolkit.validation.ledger import LeakageError, audit_entries
from toolkit.validation.predictions import format_predictions


def fuse(study, voters=None, early=None, **options):
    return fuse_all(
        study.voters if voters is None else voters,
        early,
        folds=study.folds,
        utterances=study.utterances,
        groups=study.groups,
        **options,
    )


@pytest.fixture(scope="module")
def result(study):
    return fuse(study, early=study.early)


def written(result):
    """All that a study would write of a fusion, as text."""
    tables = [*result.predictions.values(), *result.offsets.values()]
    learnt = [
        sorted(part.items())
        for part in (
            result.chosen,
            result.weights,
            result.penalties,
            result.class_offsets,
            result.ledgers,
        )
    ]
    return "".join(map(format_predictions, tables)) + repr(learnt) + repr(result.records)


def test_every_late_system_is_made(result):
    assert list(result.predictions) == ["best-single", *LATE_METHODS]
    assert all(name == table.system for name, table in result.predictions.items())


def test_every_system_but_the_reference_has_its_offset_variants(result):
    systems = ["audio", "early", "text", "visual", *LATE_METHODS]
    expected = [f"{system}-offset-{end}" for system in systems for end in ("f1", "uar")]

    assert list(result.offsets) == expected
    assert list(result.class_offsets) == expected
    assert all(name == table.system for name, table in result.offsets.items())


def test_the_rules_are_those_of_the_plain_functions(study, result):
    shares = study.early.training_priors()
    tables = [voter.predictions for voter in study.voters]

    expected = {
        "vote": majority_vote(tables, shares),
        "soft": soft_vote(tables, shares),
        "hybrid": soft_vote([*tables, study.early.predictions], shares, system="hybrid"),
    }

    for system, table in expected.items():
        assert format_predictions(result.predictions[system]) == format_predictions(table)


def test_every_system_is_aligned_with_the_voters(study, result):
    for table in [*result.predictions.values(), *result.offsets.values()]:
        study.early.predictions.check_aligned(table)


def test_the_order_of_voters_and_methods_changes_no_byte(study, result):
    first, *others = study.voters
    for voters in ([*others, first], study.voters[::-1]):
        again = fuse(
            study, voters, study.early, methods=LATE_METHODS[::-1], offsets=("uar", "f1")
        )

        assert written(again) == written(result)


def test_only_what_is_asked_for_is_made(study):
    result = fuse(study, methods=("soft",), offsets=())

    assert list(result.predictions) == ["best-single", "soft"]
    assert not result.offsets
    assert not result.weights
    assert not result.penalties
    assert list(result.ledgers) == ["best-single"]


def test_a_single_modality_gets_its_offset_variants(study):
    result = fuse(study, study.voters[1:2], methods=())

    assert list(result.offsets) == ["text-offset-f1", "text-offset-uar"]
    assert not result.predictions
    assert result.records == ()


def test_nine_voters_make_a_hybrid_of_eight_modalities(generate):
    large = generate(n=60, n_speakers=3, n_voters=8)

    result = fuse(large, early=large.early, offsets=())

    assert list(result.predictions) == ["best-single", *LATE_METHODS]
    assert set(result.weights[0]) == {voter.system for voter in large.voters}


def test_two_voters_are_enough(generate):
    small = generate(n=60, n_classes=2, n_speakers=3, n_voters=2)

    result = fuse(small, early=small.early)

    assert list(result.predictions) == ["best-single", *LATE_METHODS]


def test_no_held_out_label_touches_a_decision(study, result):
    def turn(voter):
        return replace(voter, predictions=replace(voter.predictions, labels=3 - study.labels))

    turned = fuse(study, [turn(voter) for voter in study.voters], turn(study.early))

    assert turned.class_offsets == result.class_offsets
    for kind in ("predictions", "offsets"):
        for system, table in getattr(turned, kind).items():
            expected = getattr(result, kind)[system]
            assert table.proba.tobytes() == expected.proba.tobytes()
            assert table.y_pred.tolist() == expected.y_pred.tolist()


def test_what_absent_voters_said_is_never_read(study, result):
    def garble(table):
        proba = table.proba.copy()
        proba[~table.present] = [0.97, 0.01, 0.01, 0.01]
        return replace(table, proba=proba)

    garbled = [
        replace(voter, inner={fold: garble(one) for fold, one in voter.inner.items()})
        for voter in study.voters
    ]
    garbled = [replace(voter, predictions=garble(voter.predictions)) for voter in garbled]

    again = fuse(study, garbled, study.early)

    for system in LATE_METHODS:
        ours, theirs = again.predictions[system], result.predictions[system]
        assert ours.proba.tobytes() == theirs.proba.tobytes()


def test_the_audit_of_every_late_system_finds_no_leak(study, result):
    assert set(result.ledgers) == {"best-single", "weighted", "stacked", *result.offsets}
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


def test_training_rows_of_a_held_out_speaker_stop_the_fusion(study):
    stolen = study.folds[0].test[:1]

    def leak(voter):
        first = voter.inner[0]
        rows = np.sort(np.append(first.rows[1:], stolen))
        return replace(voter, inner={**voter.inner, 0: replace(first, rows=rows)})

    with pytest.raises(LeakageError, match="held out utterance"):
        fuse(study, [leak(voter) for voter in study.voters], methods=("soft",), offsets=())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ("vote", "mean")}, r"Unknown late fusions \['mean'\]; choose among"),
        ({"offsets": ("mcc",)}, r"Unknown offsets \['mcc'\]; choose among \['f1', 'uar'\]"),
        ({"methods": ("hybrid",)}, "'hybrid' needs early fusion as one of its voters"),
    ],
)
def test_what_cannot_be_made_is_refused(study, options, message):
    with pytest.raises(ValueError, match=message):
        fuse(study, **options)


def test_a_fusion_of_one_is_refused(study):
    with pytest.raises(
        ValueError, match=r"A fusion needs two modalities or more, got \['text'\]"
    ):
        fuse(study, study.voters[1:2], methods=("vote",))
    with pytest.raises(ValueError, match="A fusion needs two modalities or more"):
        fuse(study, study.voters[1:2], study.early, methods=())


@pytest.mark.parametrize("n", [0, 9])
def test_no_voter_and_nine_modalities_are_refused(generate, n):
    study = generate(n=30, n_speakers=3, n_voters=9)

    with pytest.raises(ValueError, match=f"Got {n} modalities; expected 1 to 8"):
        fuse(study, study.voters[:n])


def test_early_fusion_of_other_rows_is_refused(study, generate):
    other = generate(seed=1)

    with pytest.raises(ValueError, match="'audio' and 'early' are not aligned"):
        fuse(study, early=other.early, methods=())


def test_the_result_cannot_be_changed(result):
    with pytest.raises(TypeError, match="does not support item assignment"):
        result.predictions["soft"] = None
