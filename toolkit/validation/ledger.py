"""The leakage ledger: the rows that every fit and every choice touched, and the verdict.

A :class:`Ledger` belongs to one unit (a system and an outer fold). Code that fits or chooses
records the rows first, and a held-out row stops the run at once. The records are kept, so the
verdict can be derived again from the files.
"""

import base64
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from toolkit.validation.folds import Fold

ROLES: Final = (
    "bin edges",
    "vocabulary",
    "screen",
    "resample parent",
    "train",
    "validate",
    "early stop",
    "choose",
    "calibrate",
    "fuse",
    "explain background",
)

# Roles that train a fit, and roles that validate it: no group may have both.
_TRAINING: Final = frozenset({"vocabulary", "screen", "resample parent", "train"})
_VALIDATING: Final = frozenset({"validate", "early stop"})


class LeakageError(ValueError):
    """A held-out utterance was about to take part in a fit or a choice."""


class Ledger:
    """Record which rows the fits of one unit touch, and refuse held-out ones.

    - fold: Its test rows, and every row of its held-out groups, may be in no fit.
    - utterances: The manifest's utterance ids, for messages.
    - groups: shape (n,) or (n, 2); The group of every row, of the kind of ``fold.held_out``,
      and perhaps its content.
    """

    def __init__(
        self, system: str, fold: Fold, utterances: NDArray[np.str_], groups: NDArray[np.str_]
    ) -> None:
        self.system = system
        self.fold = fold
        self.utterances = utterances
        self.groups = groups
        # All rows of a held-out group are refused, tested in this fold or not.
        self._held_out = _mark_held_out(fold, groups)
        names, codes = np.unique(groups, return_inverse=True)
        self._codes = codes.reshape(len(groups), -1)
        self._no_group: NDArray[np.bool_] = np.zeros(len(names), dtype=bool)
        # Groups that train (True) and that validate (False) each fit.
        self._sides: dict[tuple[str, bool], NDArray[np.bool_]] = {}
        self._masks: dict[tuple[str, str], NDArray[np.bool_]] = {}
        self._counts: dict[tuple[str, str], int] = defaultdict(int)

    def record(self, fit: str, role: str, rows: NDArray[np.int64]) -> None:
        """Record that a fit, such as ``"inner 2"`` or ``"refit"``, touches some rows.

        LeakageError is raised if a row, its group or its content is held out; or if its group
        or content is on the other side of the fit, training or validation.
        """
        if role not in ROLES:
            raise ValueError(f"Unknown role {role!r}; choose among {', '.join(ROLES)}.")
        self._refuse(fit, role, rows[self._held_out[rows]], "held out")
        if role in _TRAINING | _VALIDATING:
            trains, codes = role in _TRAINING, self._codes[rows]
            opposite = self._sides.get((fit, not trains), self._no_group)
            why = "validation" if trains else "training"
            self._refuse(fit, role, rows[opposite[codes].any(axis=1)], why)
            self._sides.setdefault((fit, trains), self._no_group.copy())[codes] = True
        mask = self._masks.setdefault((fit, role), np.zeros(len(self.groups), dtype=bool))
        mask[rows] = True
        self._counts[fit, role] += 1

    def record_split(self, fit: str, inner: Fold) -> None:
        """Record an inner split, and refuse one whose two sides share a row or a group.

        Its training side trains, its test side validates and stops.
        """
        self.record(fit, "validate", inner.test)
        self.record(fit, "train", inner.train)

    def entries(self) -> list[dict[str, Any]]:
        """Return the records as plain data, one per fit and role.

        ``rows`` is a base64 bit set over the manifest (most significant bit first).
        """
        return [
            {
                "fit": fit,
                "role": role,
                "times": self._counts[fit, role],
                "n_rows": int(mask.sum()),
                "rows": base64.b64encode(np.packbits(mask).tobytes()).decode("ascii"),
            }
            for (fit, role), mask in sorted(self._masks.items())
        ]

    def _refuse(self, fit: str, role: str, rows: NDArray[np.int64], why: str) -> None:
        if len(rows):
            names = ", ".join(self.utterances[rows[:5]].tolist())
            # Five names are enough to find the cause, and keep the message readable.
            raise LeakageError(
                f"Leakage stopped: fit {fit!r} of {self.system}/{self.fold.name} would use "
                f"{len(rows)} {why} utterance(s) in role {role!r}: {names}. "
                "Nothing was written; please report this as a defect."
            )


def _mark_held_out(fold: Fold, groups: NDArray[np.str_]) -> NDArray[np.bool_]:
    """Mark the test rows, and every row of a held-out group or content."""
    named = np.isin(groups.reshape(len(groups), -1), fold.held_out)
    held_out = np.asarray(named.any(axis=1))
    held_out[fold.test] = True
    return held_out


def audit_entries(
    system: str, fold: Fold, entries: Sequence[dict[str, Any]], groups: NDArray[np.str_]
) -> list[str]:
    """Derive the verdict on one unit from :meth:`Ledger.entries`: a sentence per violation.

    `groups` are as of :class:`Ledger`.
    """
    unit = f"{system}/{fold.name}"
    held_out = _mark_held_out(fold, groups)
    problems: list[str] = []
    sides: dict[str, dict[str, NDArray[np.bool_]]] = defaultdict(dict)
    for entry in entries:
        # Entries come from files: a bit set of another length belongs to another manifest.
        bits = np.frombuffer(base64.b64decode(entry["rows"]), dtype=np.uint8)
        if len(bits) != (len(groups) + 7) // 8:
            problems.append(f"{unit}: {entry['fit']} was recorded over other rows.")
            continue
        mask = np.unpackbits(bits, count=len(groups)).astype(bool)
        sides[entry["fit"]][entry["role"]] = mask
        if n_leaked := int((mask & held_out).sum()):
            problems.append(
                f"{unit}: {entry['fit']} used {n_leaked} held-out utterances ({entry['role']})."
            )
    for fit, roles in sides.items():
        trained, validated = (
            {
                name
                for role in roles.keys() & side
                for name in groups[roles[role]].ravel().tolist()
            }
            for side in (_TRAINING, _VALIDATING)
        )
        if shared := sorted(trained & validated):
            problems.append(f"{unit}: {fit} trains and validates on {', '.join(shared)}.")
    # A unit without records was not checked, which must not read as a pass.
    if not sides:
        problems.append(f"{unit}: nothing was recorded.")
    return problems
