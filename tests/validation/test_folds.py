"""Folds: no person is ever on both sides."""

from dataclasses import replace

import numpy as np
import pytest

from toolkit.validation.folds import (
    group_folds,
    inner_folds,
    make_folds,
    session_folds,
    speaker_folds,
    split_fold,
)


def test_each_speaker_is_held_out_once_and_alone(manifest):
    folds = speaker_folds(manifest)

    assert [fold.held_out for fold in folds] == [(s,) for s in np.unique(manifest.speakers)]
    tested = np.concatenate([fold.test for fold in folds])
    assert sorted(tested.tolist()) == list(range(len(manifest)))


@pytest.mark.parametrize("outer", ["speaker", "session", "4"])
def test_groups_never_cross_a_fold(manifest, outer):
    groups = manifest.groups("session" if outer == "session" else "speaker")

    for fold in make_folds(manifest, outer, seed=0):
        assert not set(groups[fold.train]) & set(groups[fold.test])
        assert set(groups[fold.test]) == set(fold.held_out)
        assert len(fold.train) + len(fold.test) == len(manifest)


def test_a_session_takes_both_partners_out(manifest):
    for fold in session_folds(manifest):
        assert len(np.unique(manifest.speakers[fold.test])) == 2


def test_group_folds_have_about_the_same_size(manifest):
    sizes = [len(fold.test) for fold in group_folds(manifest, 5, seed=0)]

    assert max(sizes) <= 2 * min(sizes)


@pytest.mark.parametrize("n_folds", [1, 11])
def test_an_impossible_number_of_folds_is_refused(manifest, n_folds):
    with pytest.raises(ValueError, match=f"Cannot make {n_folds} outer folds of 10 speakers"):
        group_folds(manifest, n_folds, seed=0)


def test_inner_folds_split_the_training_rows_by_person(manifest):
    outer = speaker_folds(manifest)[3]

    inner = inner_folds(manifest, outer, unit="speaker", n_folds=3, seed=0, purpose="search")

    assert sorted(np.concatenate([fold.test for fold in inner])) == outer.train.tolist()
    for fold in inner:
        assert not set(manifest.speakers[fold.train]) & set(manifest.speakers[fold.test])
        assert not np.isin(outer.test, np.concatenate([fold.train, fold.test])).any()


def test_purposes_have_partitions_of_their_own(manifest):
    outer = speaker_folds(manifest)[0]
    parts = {
        purpose: [
            fold.held_out
            for fold in inner_folds(
                manifest, outer, unit="speaker", n_folds=3, seed=0, purpose=purpose
            )
        ]
        for purpose in ("search", "out-of-fold")
    }

    assert parts["search"] != parts["out-of-fold"]


def test_inner_folds_are_clipped_to_the_people_there_are(manifest):
    outer = session_folds(manifest)[0]

    inner = inner_folds(manifest, outer, unit="session", n_folds=20, seed=0, purpose="search")

    assert len(inner) == 4


def test_no_fold_is_empty_where_groups_are_few_and_unequal(manifest):
    # Stratified packing puts these three groups into two parts.
    lopsided = np.where(manifest.labels == 0, "a", np.where(manifest.labels == 1, "b", "c"))
    few = replace(manifest, speakers=lopsided)

    folds = group_folds(few, 3, seed=0)

    assert sorted(fold.held_out for fold in folds) == [("a",), ("b",), ("c",)]


def with_split(manifest, test_speakers, words=("train", "test")):
    held_out = np.isin(manifest.speakers, test_speakers)
    return replace(manifest, splits=np.where(held_out, words[1], words[0]))


def test_a_given_split_is_honoured(manifest):
    given = with_split(manifest, ["F01", "M01"])

    (fold,) = split_fold(given)

    assert fold.held_out == ("F01", "M01")
    assert set(given.splits[fold.test]) == {"test"}


def test_a_split_with_one_person_on_both_sides_is_refused(manifest):
    splits = np.where(np.arange(len(manifest)) % 2, "train", "test")

    with pytest.raises(ValueError, match=r"10 speaker\(s\) on both sides \(F01"):
        split_fold(replace(manifest, splits=splits))


def test_other_words_in_a_split_are_refused(manifest):
    with pytest.raises(ValueError, match="holds 'dev'; only 'train' and 'test'"):
        split_fold(with_split(manifest, ["F01"], words=("train", "dev")))


def test_a_training_side_of_one_class_is_refused(manifest):
    # Only F01 says anything but class 0: without F01 nothing is left to tell apart.
    labels = np.where(manifest.speakers == "F01", 1, 0)

    with pytest.raises(ValueError, match="Without F01 a single class is left"):
        make_folds(replace(manifest, labels=labels), "speaker", seed=0)


def test_an_unknown_protocol_is_refused(manifest):
    with pytest.raises(ValueError, match="Unknown outer protocol 'random'"):
        make_folds(manifest, "random", seed=0)
