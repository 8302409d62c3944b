"""Folds hold out whole groups, and seeds depend on names alone."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from toolkit.validation.folds import (
    FINAL,
    Fold,
    derive_seed,
    final_fold,
    fold_name,
    has_one_label_each,
    inner_folds,
    make_folds,
    outer_grouping,
    permute_labels,
    resolve_outer,
    speaker_folds,
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


@pytest.mark.parametrize(
    ("n_speakers", "expected"), [(3, "speaker"), (20, "speaker"), (21, "10")]
)
def test_auto_holds_out_each_of_20_speakers_and_ten_groups_of_more(
    manifest, n_speakers, expected
):
    names = np.array([f"S{row % n_speakers:02d}" for row in range(len(manifest))])
    people = replace(manifest, speakers=names, sessions=None)

    assert resolve_outer(people, "auto") == expected
    assert resolve_outer(people, "session") == "session"
    assert len(make_folds(people, expected, seed=0)) == min(
        n_speakers, 20 if n_speakers < 21 else 10
    )


def test_a_session_takes_both_partners_out(manifest):
    for fold in make_folds(manifest, "session", seed=0):
        assert len(np.unique(manifest.speakers[fold.test])) == 2


def test_group_folds_have_about_the_same_size(manifest):
    sizes = [len(fold.test) for fold in make_folds(manifest, "5", seed=0)]

    assert max(sizes) <= 2 * min(sizes)


@pytest.mark.parametrize("n_folds", [1, 11])
def test_an_impossible_number_of_folds_is_refused(manifest, n_folds):
    with pytest.raises(ValueError, match=f"Cannot make {n_folds} outer folds of 10 speakers"):
        make_folds(manifest, str(n_folds), seed=0)


def test_inner_folds_split_the_training_rows_by_person(manifest):
    outer = speaker_folds(manifest)[3]

    inner = inner_folds(
        manifest, outer, grouping="speaker", n_folds=3, seed=0, purpose="search"
    )

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
                manifest, outer, grouping="speaker", n_folds=3, seed=0, purpose=purpose
            )
        ]
        for purpose in ("search", "out-of-fold")
    }

    assert parts["search"] != parts["out-of-fold"]


@pytest.mark.parametrize("seed", range(20))
def test_no_partition_leaves_a_class_out_of_training_where_it_need_not(manifest, seed):
    # Two people of eight have class 1: dealt at random, they share a part of two in 3 of 7.
    n = len(manifest)
    few = replace(
        manifest,
        speakers=np.array([f"p{k % 8}" for k in range(n)]),
        labels=(np.arange(n) % 8 < 2).astype(np.int64),
        sessions=None,
    )
    for purpose in ("search", "out-of-fold"):
        folds = inner_folds(
            few, final_fold(few), grouping="speaker", n_folds=2, seed=seed, purpose=purpose
        )
        assert [len(np.unique(few.labels[fold.train])) for fold in folds] == [2, 2]


def test_inner_folds_are_clipped_to_the_people_there_are(manifest):
    outer = make_folds(manifest, "session", seed=0)[0]

    inner = inner_folds(
        manifest, outer, grouping="session", n_folds=20, seed=0, purpose="search"
    )

    assert len(inner) == 4


@pytest.mark.parametrize("seed", range(4))
def test_no_fold_is_empty_where_groups_are_few_and_unequal(manifest, seed):
    # Stratified packing puts these four groups into three parts, whatever the seed.
    sizes = {"a": 80, "b": 10, "c": 40, "d": 20}
    few = replace(
        manifest,
        speakers=np.repeat(list(sizes), list(sizes.values())),
        labels=np.repeat([0, 1, 0, 1], list(sizes.values())),
    )

    folds = make_folds(few, "4", seed=seed)

    assert sorted(fold.held_out for fold in folds) == [("a",), ("b",), ("c",), ("d",)]


def test_classes_rarer_than_folds_are_no_hindrance(manifest):
    # 75 classes of two rows each: none can be in all of four folds.
    rare = replace(manifest, labels=np.arange(len(manifest)) // 2)

    folds = make_folds(rare, "4", seed=0)

    tested = np.concatenate([fold.test for fold in folds])
    assert sorted(tested.tolist()) == list(range(len(manifest)))


def test_one_rare_class_is_no_hindrance_and_no_warning(manifest):
    labels = np.where(np.arange(len(manifest)) == 7, 3, manifest.labels % 3)

    folds = make_folds(replace(manifest, labels=labels), "4", seed=0)

    assert len(folds) == 4


@pytest.mark.parametrize("outer", ["speaker", "session"])
def test_two_groups_are_too_few_to_leave_one_out(manifest, outer):
    halves = np.where(np.arange(len(manifest)) % 2, "a", "b")

    with pytest.raises(ValueError, match=rf"needs at least 3 {outer}s, got 2 \(a, b\)"):
        make_folds(replace(manifest, speakers=halves, sessions=halves), outer, seed=0)


def test_a_search_on_a_single_person_is_refused(manifest):
    alone = np.flatnonzero(manifest.speakers == "F01")
    outer = Fold(2, alone, np.flatnonzero(manifest.speakers == "F02"), ("F02",))

    with pytest.raises(ValueError, match="Outer fold 02 trains on a single speaker"):
        inner_folds(manifest, outer, grouping="speaker", n_folds=3, seed=0, purpose="search")


@pytest.mark.parametrize(("train", "test", "side"), [([], [1], "training"), ([1], [], "test")])
def test_a_fold_without_rows_on_a_side_is_refused(train, test, side):
    rows = (np.array(each, dtype=np.int64) for each in (train, test))

    with pytest.raises(ValueError, match=f"Fold 3 has no {side} rows"):
        Fold(3, *rows, ("anna",))


def test_rows_of_a_fold_cannot_be_changed_and_increase(manifest):
    for outer in ("speaker", "session", "4"):
        for fold in make_folds(manifest, outer, seed=0):
            inner = inner_folds(
                manifest, fold, grouping="speaker", n_folds=3, seed=0, purpose="out-of-fold"
            )
            for rows in (rows for each in (fold, *inner) for rows in (each.train, each.test)):
                assert (np.diff(rows) > 0).all()
                with pytest.raises(ValueError, match="read-only"):
                    rows[0] = 0


@pytest.mark.parametrize("purpose", ["search", "out-of-fold"])
def test_inner_folds_never_split_a_session_that_is_held_out_whole(manifest, purpose):
    for outer in make_folds(manifest, "session", seed=0):
        for fold in inner_folds(
            manifest, outer, grouping="session", n_folds=3, seed=0, purpose=purpose
        ):
            assert not set(manifest.sessions[fold.train]) & set(manifest.sessions[fold.test])


def test_sessions_that_share_a_person_cannot_be_held_out(manifest):
    sessions = np.where(np.arange(len(manifest)) == 0, "Session5", manifest.sessions)

    with pytest.raises(ValueError, match=r"1 speaker\(s\) in several sessions \(F01\)"):
        make_folds(replace(manifest, sessions=sessions), "session", seed=0)


def test_a_split_that_is_not_there_is_refused(manifest):
    with pytest.raises(ValueError, match=r"has no split column; .*--outer speaker"):
        make_folds(manifest, "split", seed=0)


def with_split(manifest, test_speakers, words=("train", "test")):
    held_out = np.isin(manifest.speakers, test_speakers)
    return replace(manifest, splits=np.where(held_out, words[1], words[0]))


def test_a_given_split_is_honoured(manifest):
    given = with_split(manifest, ["F01", "M01"])

    (fold,) = make_folds(given, "split", seed=0)

    assert fold.held_out == ("F01", "M01")
    assert set(given.splits[fold.test]) == {"test"}


def test_a_split_with_one_person_on_both_sides_is_refused(manifest):
    splits = np.where(np.arange(len(manifest)) % 2, "train", "test")

    with pytest.raises(ValueError, match=r"10 speaker\(s\) on both sides \(F01"):
        make_folds(replace(manifest, splits=splits), "split", seed=0)


def test_other_words_in_a_split_are_refused(manifest):
    with pytest.raises(ValueError, match="holds 'dev'; only 'train' and 'test'"):
        make_folds(with_split(manifest, ["F01"], words=("train", "dev")), "split", seed=0)


def test_a_training_side_of_one_class_is_refused(manifest):
    # Only F01 says anything but class 0: without F01 nothing is left to tell apart.
    labels = np.where(manifest.speakers == "F01", 1, 0)

    with pytest.raises(ValueError, match="Without F01 a single class is left"):
        make_folds(replace(manifest, labels=labels), "speaker", seed=0)


def test_an_unknown_protocol_is_refused(manifest):
    with pytest.raises(ValueError, match="Unknown outer protocol 'random'"):
        make_folds(manifest, "random", seed=0)


def test_folds_are_named_by_two_digits_or_as_final():
    assert [fold_name(number) for number in (3, 12, FINAL)] == ["03", "12", "final"]


def test_every_name_and_its_place_count():
    seeds = [
        derive_seed(0, "text", 1),
        derive_seed(1, "text", 1),
        derive_seed(0, "text", 2),
        derive_seed(0, "audio", 1),
        derive_seed(0, 1, "text"),
        derive_seed(0, "text1"),
        derive_seed(0, "text", "1"),
    ]

    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)


@pytest.mark.slow
def test_hash_randomisation_changes_nothing():
    code = "from toolkit.validation.folds import derive_seed; print(derive_seed(3, 'a', 7))"
    seeds = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }

    assert seeds == {f"{derive_seed(3, 'a', 7)}\n"}


def test_labels_stay_with_their_speaker_where_one_has_two():
    speakers = np.repeat(["a", "b", "c"], [20, 30, 10])
    labels = np.concatenate([np.arange(20) % 3, np.arange(30) % 2, np.ones(10, dtype=int)])

    permuted = permute_labels(labels, speakers, 4)

    assert not has_one_label_each(labels, speakers)
    assert not np.array_equal(permuted, labels)
    assert not np.array_equal(permuted, permute_labels(labels, speakers, 5))
    assert np.array_equal(permuted, permute_labels(labels, speakers, 4))
    for name in np.unique(speakers):
        here = speakers == name
        assert sorted(permuted[here]) == sorted(labels[here])


def test_speakers_exchange_their_labels_where_each_has_one():
    names = np.array([f"p{k}" for k in range(6)])
    speakers = np.repeat(names, [1, 2, 3, 4, 5, 6])
    of_speaker = np.array([0, 0, 1, 1, 2, 2])
    labels = np.repeat(of_speaker, [1, 2, 3, 4, 5, 6])

    seen = set()
    for seed in range(50):
        permuted = permute_labels(labels, speakers, seed)
        sets = [np.unique(permuted[speakers == name]) for name in names]
        assert all(len(each) == 1 for each in sets)
        assert sorted(int(each[0]) for each in sets) == of_speaker.tolist()
        seen.add(permuted.tobytes())
    assert has_one_label_each(labels, speakers)
    assert len(seen) > 20


@pytest.fixture(scope="module")
def scripted(manifest):
    """Nine scripts, spoken by people of all sessions."""
    drawn = np.random.default_rng(2).integers(0, 9, len(manifest))
    return replace(manifest, contents=np.array([f"script{k}" for k in drawn]))


@pytest.mark.parametrize(
    ("outer", "n_folds"), [("speaker+content", 30), ("session+content", 15), ("4+content", 12)]
)
def test_with_content_every_row_is_tested_once_without_its_group_and_its_content(
    scripted, outer, n_folds
):
    groups = scripted.groups("session" if "session" in outer else "speaker")

    folds = make_folds(scripted, outer, seed=0)

    assert len(folds) == n_folds
    assert [fold.number for fold in folds] == list(range(n_folds))
    tested = np.concatenate([fold.test for fold in folds])
    assert sorted(tested.tolist()) == list(range(len(scripted)))
    for fold in folds:
        for names in (groups, scripted.contents):
            assert not set(names[fold.train]) & set(names[fold.test])
        held_out = {*groups[fold.test], *(f"content:{c}" for c in scripted.contents[fold.test])}
        assert held_out <= set(fold.held_out)
        # Nothing else is left out: a row is in training unless group or content is held out.
        named = np.isin(scripted.groups(outer_grouping(outer)), fold.held_out).any(axis=1)
        assert np.array_equal(np.flatnonzero(~named), fold.train)
    shares = np.array(
        [np.bincount(scripted.labels[fold.test], minlength=4) for fold in folds]
    ).reshape(-1, 3, 4)
    # The three parts of the content are of similar size and class shares.
    by_part = shares.sum(axis=0)
    assert (np.ptp(by_part, axis=0) <= 0.5 * by_part.mean(axis=0)).all()


@pytest.mark.parametrize("purpose", ["search", "out-of-fold"])
def test_inner_folds_hold_out_content_by_the_same_rule(scripted, purpose):
    options = {"grouping": "speaker+content", "n_folds": 3, "seed": 0, "purpose": purpose}

    for outer in (make_folds(scripted, "speaker+content", seed=0)[4], final_fold(scripted)):
        inner = inner_folds(scripted, outer, content_parts=2, **options)

        assert len(inner) == 6
        assert sorted(np.concatenate([fold.test for fold in inner])) == outer.train.tolist()
        for fold in inner:
            assert set(fold.train) <= set(outer.train)
            for names in (scripted.speakers, scripted.contents):
                assert not set(names[fold.train]) & set(names[fold.test])


def test_content_that_makes_no_folds_is_refused(scripted):
    two = replace(scripted, contents=np.where(scripted.labels < 2, "a", "b"))
    with pytest.raises(ValueError, match=r"4 parts of 2 contents; choose --content-parts from"):
        make_folds(two, "speaker+content", seed=0, content_parts=4)
    # Without the scripts of the one class, the other is all that is left.
    one_each = replace(scripted, contents=np.where(scripted.labels == 0, "a", "b"))
    with pytest.raises(ValueError, match="fewer than two classes are left to learn from"):
        make_folds(one_each, "speaker+content", seed=0, content_parts=2)
    outer = make_folds(two, "session+content", seed=0, content_parts=2)[0]
    with pytest.raises(ValueError, match="trains on a single content"):
        inner_folds(two, outer, grouping="session+content", n_folds=3, seed=0, purpose="search")
    with pytest.raises(ValueError, match="has no content"):
        make_folds(replace(scripted, contents=None), "speaker+content", seed=0)
    with pytest.raises(ValueError, match="Unknown outer protocol"):
        make_folds(scripted, "split+content", seed=0)


def test_auto_holds_out_content_beside_what_it_stands_for(scripted):
    assert resolve_outer(scripted, "auto+content") == "speaker+content"
