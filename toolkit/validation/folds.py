"""Outer folds hold out groups of people, and inner folds split their training rows again."""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from toolkit.data import Manifest
from toolkit.data.manifest import HeldOut

Grouping = Literal["speaker", "session"]
"""The kind of group that no split may cut in two."""

_CONTENT: Final = "+content"
CONTENT_PARTS: Final = 3
"""Parts of the content, of which an outer fold tests one."""

FINAL: Final = -1
"""Number of the fold of the final models, which trains on all rows and tests none."""


#: ``auto`` holds out each of up to 20 speakers, above that ten groups of them.
_MOST_FOLDS: Final = 20
_N_GROUPS: Final = 10


def derive_seed(seed: int, *names: str | int) -> int:
    """Derive the seed of one piece of work from the study's seed and the work's own name.

    Parameters
    ----------
    seed : int
        The study's seed.
    *names : str or int
        Path to the seeded work, from the general to the particular: ``"text", 3, "trial", 12``.

    Returns
    -------
    int
        In ``[0, 2**31)``, the range every library here accepts. It depends on the arguments
        alone (3 and "3" differ): not on the order of the work, nor on ``PYTHONHASHSEED``.
    """
    digest = hashlib.sha256(repr((int(seed), *names)).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def has_one_label_each(labels: NDArray[np.int64], speakers: NDArray[np.str_]) -> bool:
    """Test whether no speaker has two labels: to know the speaker is then to know the label."""
    return all(np.ptp(labels[speakers == name]) == 0 for name in np.unique(speakers))


def permute_labels(
    labels: NDArray[np.int64], speakers: NDArray[np.str_], seed: int
) -> NDArray[np.int64]:
    """Permute labels so that features hold nothing about them, and speakers keep what they may.

    Labels are permuted within each speaker, whose class shares stay as they are. Where no
    speaker has two labels that would change nothing: then the speakers are permuted, and each
    gets the label of another for all its rows. Returns labels of the same rows.
    """
    rng = np.random.default_rng(seed)
    names, numbers = np.unique(speakers, return_inverse=True)
    permuted = labels.copy()
    if has_one_label_each(labels, speakers):
        of_speaker = np.empty(len(names), dtype=np.int64)
        of_speaker[numbers] = labels
        permuted[:] = rng.permutation(of_speaker)[numbers]
        return permuted
    for number in range(len(names)):
        rows = np.flatnonzero(numbers == number)
        permuted[rows] = labels[rng.permutation(rows)]
    return permuted


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """One split: the rows to learn from and the rows to predict.

    Parameters
    ----------
    number : int
        Position among the folds, from 0; :data:`FINAL` for the final models.
    train, test : ndarray of int64
        Row positions in the manifest, increasing; no group is on both sides. Only the final
        fold has no test rows.
    held_out : tuple of str
        The groups (speakers or sessions) of the test rows; where content is held out as well,
        all groups and contents that the training rows lack.
    """

    number: int
    train: NDArray[np.int64]
    test: NDArray[np.int64]
    held_out: tuple[str, ...]

    def __post_init__(self) -> None:
        # Systems share their folds: a row changed for one would change for all.
        for rows in (self.train, self.test):
            rows.setflags(write=False)
        if not len(self.train) or (not len(self.test) and self.number != FINAL):
            side = "training" if not len(self.train) else "test"
            raise ValueError(f"Fold {self.number} has no {side} rows.")

    @property
    def name(self) -> str:
        """The number with two digits, as in the names of files and folders."""
        return fold_name(self.number)


def fold_name(number: int) -> str:
    """Name a fold as files, folders and ``--only`` do: two digits, or ``"final"``."""
    return "final" if number == FINAL else f"{number:02d}"


def final_fold(manifest: Manifest) -> Fold:
    """Make the fold of the final models: it trains on all rows and tests none.

    Its inner folds hold groups out as those of any other fold do.
    """
    no_rows = np.empty(0, dtype=np.int64)
    return Fold(FINAL, np.arange(len(manifest), dtype=np.int64), no_rows, ())


def resolve_outer(manifest: Manifest, outer: str) -> str:
    """Choose what ``auto`` stands for: ``speaker`` up to 20 speakers, above that ``10``."""
    groups, content, _ = outer.partition(_CONTENT)
    if groups != "auto":
        return outer
    few = len(np.unique(manifest.speakers)) <= _MOST_FOLDS
    return ("speaker" if few else str(_N_GROUPS)) + content


def holds_content(outer: str) -> bool:
    """Test whether an outer protocol holds out content beside groups."""
    return outer.endswith(_CONTENT)


def outer_grouping(outer: str) -> HeldOut:
    """Name the kind of group that no fold of an outer protocol cuts in two.

    Parameters
    ----------
    outer : str
        A protocol of :func:`make_folds`.

    Returns
    -------
    str
        ``"session"`` or ``"speaker"``, and ``+content`` where the protocol has it.
    """
    if outer.startswith("session"):
        return "session+content" if holds_content(outer) else "session"
    return "speaker+content" if holds_content(outer) else "speaker"


def speaker_folds(manifest: Manifest) -> tuple[Fold, ...]:
    """Hold out one speaker at a time.

    Parameters
    ----------
    manifest : Manifest

    Returns
    -------
    tuple of Fold
        One per speaker, in the speakers' sorted order.
    """
    return _outer_folds(manifest, "speaker", seed=0)


def make_folds(
    manifest: Manifest, outer: str, *, seed: int, content_parts: int = CONTENT_PARTS
) -> tuple[Fold, ...]:
    """Make the outer folds of a protocol; ValueError if it does not fit the data.

    Parameters
    ----------
    manifest : Manifest
    outer : str
        ``"speaker"``, ``"session"``, ``"split"`` or a number of folds. With ``+content``, a
        fold tests one of these groups on one part of the content, and trains on neither.
    seed : int
        Seed of the shuffle; read only with a number of folds, and with ``+content``.
    content_parts : int, default=3

    Returns
    -------
    tuple of Fold
        In a fixed order; every training side holds at least two classes.
    """
    folds = _outer_folds(manifest, outer, seed=seed, content_parts=content_parts)
    for fold in folds:
        if len(np.unique(manifest.labels[fold.train])) < 2:
            raise ValueError(
                f"Without {', '.join(fold.held_out)} a single class is left to learn from; "
                "choose --outer with larger folds."
            )
    return folds


def inner_folds(
    manifest: Manifest,
    outer_fold: Fold,
    *,
    grouping: HeldOut,
    n_folds: int,
    seed: int,
    purpose: Literal["search", "out-of-fold"],
    content_parts: int = CONTENT_PARTS,
) -> tuple[Fold, ...]:
    """Split an outer fold's training rows again, by the same kind of group.

    Where content is held out, an inner fold validates some groups on a part of the content,
    and trains on neither: ``n_folds * content_parts`` folds validate every row once.

    The folds depend on the seed, the outer fold and the manifest only, never on the system
    that is searched, so the inner probabilities of every system align row by row.
    """
    keys = manifest.groups(grouping)
    groups = groups_of(keys)
    rows = outer_fold.train
    n_groups = len(np.unique(groups[rows]))
    if n_groups < 2:
        raise ValueError(
            f"Outer fold {outer_fold.name} trains on a single {grouping}: there is nothing to "
            "validate a search on. More people are needed."
        )
    # Few speakers can train with some protocols: fewer inner folds are better than none.
    n_parts = min(n_folds, n_groups)

    def deal(groups: NDArray[np.str_], n_parts: int, what: str) -> list[NDArray[np.int64]]:
        own_seed = derive_seed(seed, what, purpose, outer_fold.number)
        labels = manifest.labels[rows]
        if purpose == "out-of-fold":
            dealer = GroupKFold(n_parts, shuffle=True, random_state=own_seed)
            parts = [test for _, test in dealer.split(rows, groups=groups)]
            # A part that holds all rows of a class would leave none to train on.
            n_seen = min(len(np.unique(np.delete(labels, test))) for test in parts)
            if n_seen == len(np.unique(labels)):
                return parts
        return _stratified_parts(labels, groups, n_parts, own_seed)

    parts = deal(groups[rows], n_parts, "inner")
    if keys.ndim == 1:
        return _make_folds(rows, parts, groups)
    contents = keys[rows, 1]
    n_contents = len(np.unique(contents))
    if n_contents < 2:
        raise ValueError(
            f"Outer fold {outer_fold.name} trains on a single content ({contents[0]}), so none "
            "is left to validate a search on. Choose more --content-parts."
        )
    dealt = deal(contents, min(content_parts, n_contents), "inner content")
    pairs = cross_parts(parts, dealt, len(rows))
    return _cross_folds(rows, pairs, keys, manifest.labels, f" in outer fold {outer_fold.name}")


def _outer_folds(
    manifest: Manifest, outer: str, *, seed: int, content_parts: int = CONTENT_PARTS
) -> tuple[Fold, ...]:
    keys = manifest.groups(outer_grouping(outer))
    groups = groups_of(keys)
    rows = np.arange(len(manifest))
    base = outer.removesuffix(_CONTENT)
    if base.isdecimal():
        n_folds, n_groups = int(base), len(np.unique(groups))
        if not 2 <= n_folds <= n_groups:
            raise ValueError(
                f"Cannot make {n_folds} outer folds of {n_groups} speakers; "
                f"choose a number from 2 to {n_groups}."
            )
        own_seed = derive_seed(seed, "outer", n_folds)
        parts = _stratified_parts(manifest.labels, groups, n_folds, own_seed)
    elif base in {"speaker", "session"}:
        parts = _group_parts(manifest, "session" if base == "session" else "speaker")
    elif outer == "split":
        parts = [_split_column_part(manifest)]
    else:
        raise ValueError(
            f"Unknown outer protocol {outer!r}; choose speaker, session, split or a number."
        )
    if keys.ndim == 1:
        return _make_folds(rows, parts, groups)
    pairs = cross_parts(parts, deal_content(manifest, content_parts, seed=seed), len(rows))
    return _cross_folds(rows, pairs, keys, manifest.labels)


def groups_of(keys: NDArray[np.str_]) -> NDArray[np.str_]:
    """Pick the group of each row from :meth:`toolkit.data.Manifest.groups`."""
    return keys if keys.ndim == 1 else keys[:, 0]


def deal_content(manifest: Manifest, n_parts: int, *, seed: int) -> list[NDArray[np.int64]]:
    """Deal the content into parts of similar class shares; list the rows of each."""
    assert manifest.contents is not None
    n_contents = len(np.unique(manifest.contents))
    if not 2 <= n_parts <= n_contents:
        raise ValueError(
            f"Cannot make {n_parts} parts of {n_contents} contents; choose --content-parts "
            f"from 2 to {n_contents}."
        )
    own_seed = derive_seed(seed, "outer content", n_parts)
    return _stratified_parts(manifest.labels, manifest.contents, n_parts, own_seed)


def cross_parts(
    parts: Sequence[NDArray[np.int64]], contents: Sequence[NDArray[np.int64]], n: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pair parts of the groups with parts of the content, both positions among `n` rows.

    A pair tests the rows of both and trains on the rows of neither, so all pairs together test
    each row once. One without test rows is left out.
    """
    made = []
    for part, content in product(parts, contents):
        if len(test := np.intersect1d(part, content)):
            made.append((np.setdiff1d(np.arange(n), np.union1d(part, content)), test))
    return made


def _cross_folds(
    rows: NDArray[np.int64],
    pairs: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
    keys: NDArray[np.str_],
    labels: NDArray[np.int64],
    where: str = "",
) -> tuple[Fold, ...]:
    """Make one fold per pair of parts; refuse one that is left with a single class."""
    folds = []
    for number, pair in enumerate(pairs):
        train, test = (rows[side] for side in pair)
        if len(np.unique(labels[train])) < 2:
            raise ValueError(
                f"Without the groups and contents tested with {' and '.join(keys[test[0]])}"
                f"{where}, {len(train)} utterances of fewer than two classes are left to learn "
                "from. Choose other --content-parts, or leave +content out of --outer."
            )
        missing = (
            np.setdiff1d(*sides) for sides in zip(keys[rows].T, keys[train].T, strict=True)
        )
        folds.append(Fold(number, train, test, tuple(np.concatenate([*missing]).tolist())))
    return tuple(folds)


def _make_folds(
    rows: NDArray[np.int64], parts: Sequence[NDArray[np.int64]], groups: NDArray[np.str_]
) -> tuple[Fold, ...]:
    """Make one fold per part, a part being positions among `rows`; groups are of all rows."""
    folds = []
    for number, part in enumerate(parts):
        test = np.sort(rows[part])
        train = np.setdiff1d(rows, test, assume_unique=True)
        folds.append(Fold(number, train, test, tuple(np.unique(groups[test]).tolist())))
    return tuple(folds)


def _group_parts(manifest: Manifest, grouping: Grouping) -> list[NDArray[np.int64]]:
    """Rows of every speaker or session, in the order of their names."""
    groups = manifest.groups(grouping)
    names = np.unique(groups)
    if grouping == "session" and (moving := manifest.speakers_between_sessions()):
        raise ValueError(
            f"{manifest.source} has {len(moving)} speaker(s) in several sessions "
            f"({', '.join(moving[:5])}): holding out a session would test people who were "
            "learnt from. Choose --outer speaker."
        )
    if len(names) < 3:
        raise ValueError(
            f"Leaving one {grouping} out needs at least 3 {grouping}s, got {len(names)} "
            f"({', '.join(names.tolist())})."
        )
    return [np.flatnonzero(groups == name) for name in names]


def _split_column_part(manifest: Manifest) -> NDArray[np.int64]:
    """Test rows of the manifest's own split, which holds out whole speakers."""
    if manifest.splits is None:
        raise ValueError(
            f"{manifest.source} has no split column; add one that says train or test in "
            "every row, or choose --outer speaker."
        )
    if unknown := sorted(set(manifest.splits.tolist()) - {"train", "test"}):
        raise ValueError(
            f"The split column of {manifest.source} holds {', '.join(map(repr, unknown))}; "
            "only 'train' and 'test' are understood. Rename them (a development set is "
            "'train': the search makes its own inner folds)."
        )
    test, train = (np.flatnonzero(manifest.splits == side) for side in ("test", "train"))
    speakers = manifest.speakers
    if both := np.intersect1d(speakers[train], speakers[test]).tolist():
        raise ValueError(
            f"The split column of {manifest.source} puts {len(both)} speaker(s) on both sides "
            f"({', '.join(both[:5])}): its test rows are not people never seen. Correct the "
            "split or choose --outer speaker."
        )
    return test


def _stratified_parts(
    labels: NDArray[np.int64], groups: NDArray[np.str_], n_folds: int, seed: int
) -> list[NDArray[np.int64]]:
    """Test positions of every part; no part is empty and no group is in two."""
    stratified = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A class with fewer rows than folds is no fault: some parts go without it.
        warnings.filterwarnings("ignore", "The least populated class in y", UserWarning)
        try:
            parts = [test for _, test in stratified.split(labels, labels, groups)]
        except ValueError:  # every class has fewer rows than there are folds
            parts = []
    if len(parts) == n_folds and all(len(part) for part in parts):
        return parts
    # Stratifying can leave a part empty when groups are few; packing by size cannot.
    return [test for _, test in GroupKFold(n_folds).split(labels, labels, groups)]
