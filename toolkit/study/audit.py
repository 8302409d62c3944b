"""The verdict on a whole study: every fit, every choice, every fold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.validation import audit_entries

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from toolkit.data import Manifest
    from toolkit.validation import Fold
    from toolkit.validation.folds import Unit


def audit_study(
    manifest: Manifest,
    folds: Sequence[Fold],
    ledgers: Mapping[str, Mapping[int, Sequence[dict[str, Any]]]],
    *,
    unit: Unit,
) -> dict[str, Any]:
    """Derive the verdict from folds and recorded entries.

    Parameters
    ----------
    manifest : Manifest
        The utterances.
    folds : sequence of Fold
        The outer folds.
    ledgers : mapping of str to mapping of int to sequence of dict
        System and number of outer fold to the ledger's entries.
    unit : {"speaker", "session"}
        What is held out.

    Returns
    -------
    dict
        ``verdict``, ``problems`` (sentences, none if all is well), the counts of folds,
        utterances and tested ones, and of each system its fits and choices.
    """
    groups = manifest.groups(unit)
    problems = [
        f"Fold {fold.name} trains on {', '.join(sorted(shared))}, who are held out in it."
        for fold in folds
        if (shared := set(groups[fold.train].tolist()) & set(groups[fold.test].tolist()))
    ]
    tested = np.bincount(np.concatenate([fold.test for fold in folds]), minlength=len(manifest))
    if tested.max() > 1:
        problems.append(f"{int((tested > 1).sum())} utterances are tested more than once.")
    for system, entries in ledgers.items():
        for fold in folds:
            if fold.number not in entries:
                problems.append(f"{system}/{fold.name}: nothing was recorded.")
                continue
            problems += audit_entries(system, fold, entries[fold.number], groups)
    return {
        "verdict": "leakage found" if problems else "no leakage found",
        "problems": problems,
        "held_out_unit": unit,
        "n_folds": len(folds),
        "n_tested": int((tested > 0).sum()),
        "n_utterances": len(manifest),
        "systems": {
            system: {
                "folds": len(by_fold),
                "fits_and_choices": sum(
                    entry["times"] for entries in by_fold.values() for entry in entries
                ),
            }
            for system, by_fold in ledgers.items()
        },
    }
