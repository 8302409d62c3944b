"""The verdict on a whole study is derived again, and finds what the ledger let pass."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from toolkit.study.config import StudyConfig
from toolkit.study.folder import Study, StudyFolder
from toolkit.study.results import _count_known, audit_study
from toolkit.validation import speaker_folds
from toolkit.validation.folds import final_fold, inner_folds, make_folds
from toolkit.validation.ledger import Ledger


@pytest.fixture(scope="module")
def folds(manifest):
    return speaker_folds(manifest)


@pytest.fixture
def entries(manifest, folds):
    recorded = {}
    for fold in folds:
        ledger = Ledger("text", fold, manifest.utterances, manifest.speakers)
        ledger.record("refit", "train", fold.train)
        recorded[fold.number] = ledger.entries()
    return recorded


@pytest.fixture
def study(manifest, folds):
    return Study(StudyFolder(Path()), StudyConfig(outer="speaker"), manifest, {}, folds)


def problems(study, entries):
    audit = audit_study(study, {"text": entries})
    assert audit["verdict"] == ("leakage found" if audit["problems"] else "no leakage found")
    return audit["problems"]


def test_a_sound_study_passes_and_its_fits_are_counted(study, manifest, entries):
    audit = audit_study(study, {"text": entries})

    assert audit["problems"] == []
    assert audit["systems"]["text"] == {
        "folds": 10,
        "fits_and_choices": 10,
        "by_role": {"train": 10},
    }
    assert audit["n_tested"] == audit["n_utterances"] == len(manifest)


def test_a_person_on_both_sides_of_an_outer_fold_is_found(study, folds, entries):
    mixed = replace(folds[3], train=np.union1d(folds[3].train, folds[3].test[:1]))
    speaker = folds[3].held_out[0]

    found = problems(replace(study, folds=(*folds[:3], mixed, *folds[4:])), entries)

    assert found == [f"Fold 03 trains on {speaker}, who are held out in it."]


def test_utterances_tested_twice_are_found(study, folds, entries):
    again = replace(folds[0], number=1)

    assert problems(replace(study, folds=(again, *folds)), entries)[0] == (
        f"{len(folds[0].test)} utterances are tested more than once."
    )


def test_a_fold_of_which_nothing_was_recorded_is_found(study, entries):
    del entries[4]

    assert problems(study, entries) == ["text/04: nothing was recorded."]


def test_entries_of_another_fold_are_found(study, entries):
    entries[0], entries[1] = entries[1], entries[0]

    found = problems(study, entries)

    assert [text.partition(":")[0] for text in found] == ["text/00", "text/01"]
    assert all("held-out utterances (train)" in text for text in found)


def test_final_models_test_nobody_but_keep_who_judges_from_who_teaches(manifest, study):
    groups = manifest.speakers
    (inner, *_) = inner_folds(
        manifest, final_fold(manifest), grouping="speaker", n_folds=2, seed=0, purpose="search"
    )
    ledger = Ledger("text", final_fold(manifest), manifest.utterances, groups)
    ledger.record_split("inner 0", inner)
    ledger.record("refit", "train", np.arange(len(manifest)))
    sound = audit_study(study, {}, final_ledgers={"text": ledger.entries()})
    ledger._masks["inner 0", "early stop"] = np.arange(len(manifest)) == inner.train[0]
    leaking = audit_study(study, {}, final_ledgers={"text": ledger.entries()})

    assert sound["problems"] == []
    assert sound["final_models"]["text"] == {
        "fits_and_choices": 3,
        "by_role": {"train": 2, "validate": 1},
    }
    assert leaking["problems"] == [
        f"text/final: inner 0 trains and validates on {groups[inner.train[0]]}."
    ]


def test_fits_and_choices_are_counted_by_role_in_the_order_of_the_roles(study):
    fold = study.folds[0]
    ledger = Ledger("text", fold, study.manifest.utterances, study.manifest.speakers)
    ledger.record("search", "choose", fold.train)
    for fit in ("inner 0", "inner 0", "refit"):
        ledger.record(fit, "train", fold.train[:1])

    counted = audit_study(study, {"text": {fold.number: ledger.entries()}})["systems"]["text"]

    assert counted["fits_and_choices"] == 4
    assert list(counted["by_role"].items()) == [("train", 3), ("choose", 1)]


def test_a_unit_that_learns_from_tested_content_is_found(manifest):
    contents = np.array([f"s{k % 7}" for k in range(len(manifest))])
    scripted = replace(manifest, contents=contents)
    config = StudyConfig(outer="speaker+content")
    sound = Study(
        StudyFolder(Path()), config, scripted, {}, make_folds(scripted, config.outer, seed=0)
    )
    recorded = {}
    for fold in sound.folds:
        ledger = Ledger("text", fold, scripted.utterances, sound.groups)
        ledger.record("refit", "train", fold.train)
        recorded[fold.number] = ledger.entries()
    assert problems(sound, recorded) == []

    # Another speaker's row of the tested content, in training and in the ledger's records.
    fold = sound.folds[5]
    same = np.isin(contents, contents[fold.test]) & (
        scripted.speakers != scripted.speakers[fold.test[0]]
    )
    mixed = replace(fold, train=np.union1d(fold.train, np.flatnonzero(same)[:1]))
    content = f"content:{contents[np.flatnonzero(same)[0]]}"
    leaking = replace(sound, folds=(*sound.folds[:5], mixed, *sound.folds[6:]))
    assert problems(leaking, recorded) == [
        f"Fold 05 trains on {content}, who are held out in it."
    ]
    by_speaker = Ledger("text", fold, scripted.utterances, scripted.speakers)
    by_speaker.record("refit", "train", mixed.train)
    recorded[5] = by_speaker.entries()
    assert problems(sound, recorded) == ["text/05: refit used 1 held-out utterances (train)."]


def test_tested_utterances_with_known_names_are_counted_in_every_kind_of_fold(manifest, folds):
    rooms = manifest.sessions
    split = folds[:1]

    for tested in (folds, split):
        known = sum(
            rooms[row] in set(rooms[fold.train]) for fold in tested for row in fold.test
        )
        assert known
        assert _count_known(rooms, tested) == (len(set(rooms)), known)
    apart = make_folds(manifest, "session", seed=0)
    assert _count_known(rooms, apart) == (len(set(rooms)), 0)
    assert _count_known(None, folds) == (0, 0)
