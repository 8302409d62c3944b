"""Which rows may learn from which: outer folds hold out people, inner folds do so again."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from toolkit.data import Manifest


def derive_seed(seed: int, *names: str | int) -> int:
    """Derive the seed of one piece of work from the study's seed and the work's own name.

    Parameters
    ----------
    seed : int
        The study's seed.
    *names : str or int
        What is seeded, from the general to the particular: ``"text", 3, "trial", 12``.

    Returns
    -------
    int
        In ``[0, 2**31)``, the range every library here accepts. It depends on nothing but
        the arguments: not on the order in which work is done, nor on ``PYTHONHASHSEED``.

    Examples
    --------
    >>> derive_seed(0, "text", 3) == derive_seed(0, "text", 3)
    True
    >>> derive_seed(0, "text", 3) == derive_seed(0, "text", "3")
    False
    """
    digest = hashlib.sha256(repr((seed, *names)).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


Unit = Literal["speaker", "session"]

FINAL: Final = -1
"""Number of the fold that trains on everybody: the final models' own, which tests nobody."""


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """One split: the rows that may be learnt from and the rows that are only predicted.

    Parameters
    ----------
    number : int
        Position among the folds, from 0; :data:`FINAL` where everybody is trained on.
    train, test : ndarray of int64
        Row positions in the manifest, increasing; no group is on both sides. Only the fold
        that trains on everybody has no test rows.
    held_out : tuple of str
        The groups (speakers or sessions) of the test rows.
    """

    number: int
    train: NDArray[np.int64]
    test: NDArray[np.int64]
    held_out: tuple[str, ...]

    def __post_init__(self) -> None:
        for rows in (self.train, self.test):
            rows.setflags(write=False)
        if not len(self.train) or (not len(self.test) and self.number != FINAL):
            side = "training" if not len(self.train) else "test"
            raise ValueError(f"Fold {self.number} has no {side} rows.")

    @property
    def name(self) -> str:
        """The number with two digits, as it stands in files and folder names."""
        return fold_name(self.number)


def fold_name(number: int) -> str:
    """Name a fold as files, folders and ``--only`` do.

    Parameters
    ----------
    number : int
        Position among the folds, or :data:`FINAL`.

    Returns
    -------
    str
        Two digits, or ``"final"``.

    Examples
    --------
    >>> fold_name(3), fold_name(FINAL)
    ('03', 'final')
    """
    return "final" if number == FINAL else f"{number:02d}"


def final_fold(manifest: Manifest) -> Fold:
    """Train on everybody, test nobody: what the models for new recordings are fitted on.

    Parameters
    ----------
    manifest : Manifest
        The utterances.

    Returns
    -------
    Fold
        Its inner folds hold people out as those of any other fold do.
    """
    nobody = np.empty(0, dtype=np.int64)
    return Fold(FINAL, np.arange(len(manifest), dtype=np.int64), nobody, ())


def outer_unit(outer: str) -> Unit:
    """Name the group that is never split: sessions where they are held out, else speakers.

    Parameters
    ----------
    outer : str
        The outer protocol: ``speaker``, ``session``, ``split`` or a number of folds.

    Returns
    -------
    str
        ``"session"`` or ``"speaker"``.
    """
    return "session" if outer == "session" else "speaker"


def speaker_folds(manifest: Manifest) -> tuple[Fold, ...]:
    """Hold out one speaker at a time.

    Parameters
    ----------
    manifest : Manifest
        The utterances and who spoke them.

    Returns
    -------
    tuple of Fold
        One a speaker, in the speakers' sorted order.
    """
    return _leave_one_out(manifest.groups("speaker"), "speaker")


def session_folds(manifest: Manifest) -> tuple[Fold, ...]:
    """Hold out one session at a time, both partners of a dyad together."""
    sessions = manifest.groups("session")
    if moving := speakers_between_sessions(manifest):
        raise ValueError(
            f"{manifest.source} has {len(moving)} speaker(s) in several sessions "
            f"({', '.join(moving[:5])}): holding out a session would test people who were "
            "learnt from. Choose --outer speaker."
        )
    return _leave_one_out(sessions, "session")


def speakers_between_sessions(manifest: Manifest) -> tuple[str, ...]:
    """Name the speakers whom no held-out session holds out."""
    pairs = np.unique(np.stack([manifest.speakers, manifest.groups("session")]), axis=1)
    names, counts = np.unique(pairs[0], return_counts=True)
    return tuple(names[counts > 1].tolist())


def group_folds(manifest: Manifest, n_folds: int, *, seed: int) -> tuple[Fold, ...]:
    """Pack the speakers into folds of about equal size and class shares."""
    groups = manifest.groups("speaker")
    n_speakers = len(np.unique(groups))
    if not 2 <= n_folds <= n_speakers:
        raise ValueError(
            f"Cannot make {n_folds} outer folds of {n_speakers} speakers; "
            f"choose a number from 2 to {n_speakers}."
        )
    parts = _stratified_parts(
        manifest.labels, groups, n_folds, derive_seed(seed, "outer", n_folds)
    )
    everything = np.arange(len(manifest))
    return tuple(_fold(k, everything, part, groups) for k, part in enumerate(parts))


def split_fold(manifest: Manifest) -> tuple[Fold, ...]:
    """Honour the manifest's own split: learn from its train rows, score its test rows."""
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
    test = np.flatnonzero(manifest.splits == "test")
    train = np.flatnonzero(manifest.splits == "train")
    speakers = manifest.groups("speaker")
    if both := np.intersect1d(speakers[train], speakers[test]).tolist():
        raise ValueError(
            f"The split column of {manifest.source} puts {len(both)} speaker(s) on both sides "
            f"({', '.join(both[:5])}): its test rows are not people never seen. Mend the "
            "split or choose --outer speaker."
        )
    return (Fold(0, train, test, tuple(np.unique(speakers[test]).tolist())),)


def make_folds(manifest: Manifest, outer: str, *, seed: int) -> tuple[Fold, ...]:
    """Make the outer folds of a protocol.

    Parameters
    ----------
    manifest : Manifest
        The utterances.
    outer : str
        ``"speaker"``, ``"session"``, ``"split"`` or a number of folds.
    seed : int
        Used by a number of folds alone.

    Returns
    -------
    tuple of Fold
        In a fixed order; every training side holds at least two classes.

    Raises
    ------
    ValueError
        If the protocol does not fit the data.
    """
    if outer == "speaker":
        folds = speaker_folds(manifest)
    elif outer == "session":
        folds = session_folds(manifest)
    elif outer == "split":
        folds = split_fold(manifest)
    elif outer.isdecimal():
        folds = group_folds(manifest, int(outer), seed=seed)
    else:
        raise ValueError(
            f"Unknown outer protocol {outer!r}; choose speaker, session, split or a number."
        )
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
    unit: Unit,
    n_folds: int,
    seed: int,
    purpose: Literal["search", "out-of-fold"],
) -> tuple[Fold, ...]:
    """Split an outer fold's training rows again, by the same unit.

    The folds depend on the seed, the outer fold and the manifest only, never on the system
    that is searched, so the inner probabilities of every system align row by row.
    """
    groups = manifest.groups(unit)
    rows = outer_fold.train
    n_groups = len(np.unique(groups[rows]))
    if n_groups < 2:
        raise ValueError(
            f"Outer fold {outer_fold.name} trains on a single {unit}: there is nothing to "
            "validate a search on. More people are needed."
        )
    n_parts = min(n_folds, n_groups)
    own_seed = derive_seed(seed, "inner", purpose, outer_fold.number)
    if purpose == "search":
        parts = _stratified_parts(manifest.labels[rows], groups[rows], n_parts, own_seed)
    else:
        dealer = GroupKFold(n_parts, shuffle=True, random_state=own_seed)
        parts = [test for _, test in dealer.split(rows, groups=groups[rows])]
    return tuple(_fold(k, rows, rows[part], groups) for k, part in enumerate(parts))


def _leave_one_out(groups: NDArray[np.str_], unit: Unit) -> tuple[Fold, ...]:
    names = np.unique(groups)
    if len(names) < 3:
        raise ValueError(
            f"Leaving one {unit} out needs at least 3 {unit}s, got {len(names)} "
            f"({', '.join(names.tolist())})."
        )
    everything = np.arange(len(groups))
    return tuple(
        _fold(k, everything, np.flatnonzero(groups == name), groups)
        for k, name in enumerate(names)
    )


def _fold(
    number: int, rows: NDArray[np.int64], test: NDArray[np.int64], groups: NDArray[np.str_]
) -> Fold:
    train = np.setdiff1d(rows, test, assume_unique=True)
    return Fold(number, train, np.sort(test), tuple(np.unique(groups[test]).tolist()))


def _stratified_parts(
    labels: NDArray[np.int64], groups: NDArray[np.str_], n_folds: int, seed: int
) -> list[NDArray[np.int64]]:
    """Test positions of every part; no part is empty and no group is in two."""
    splitter: Iterable[tuple[NDArray[np.int64], NDArray[np.int64]]]
    with warnings.catch_warnings():
        # A class with fewer rows than folds is no fault: some parts go without it.
        warnings.filterwarnings("ignore", "The least populated class in y", UserWarning)
        try:
            splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed).split(
                np.zeros(len(labels)), labels, groups
            )
            parts = [test for _, test in splitter]
        except ValueError:  # every class has fewer rows than there are folds
            parts = []
    if len(parts) == n_folds and all(len(part) for part in parts):
        return parts
    # Stratifying can leave a part empty when groups are few; packing by size cannot.
    splitter = GroupKFold(n_folds).split(np.zeros(len(labels)), labels, groups)
    return [test for _, test in splitter]
