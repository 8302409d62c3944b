"""The verdict on a whole study: every fit, every choice, every fold, every tested row."""

from __future__ import annotations

from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.validation import audit_entries, count_roles, final_fold

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from toolkit.data import Manifest
    from toolkit.validation import Fold, Predictions
    from toolkit.validation.folds import Unit


def audit_study(
    manifest: Manifest,
    folds: Sequence[Fold],
    ledgers: Mapping[str, Mapping[int, Sequence[dict[str, Any]]]],
    *,
    unit: Unit,
    finals: Mapping[str, Sequence[dict[str, Any]]] = MappingProxyType({}),
    predictions: Mapping[str, Predictions] = MappingProxyType({}),
) -> dict[str, Any]:
    """Derive the verdict from folds and recorded entries."""
    groups = manifest.groups(unit)
    problems = [
        f"Fold {fold.name} trains on {', '.join(sorted(shared))}, who are held out in it."
        for fold in folds
        if (shared := set(groups[fold.train].tolist()) & set(groups[fold.test].tolist()))
    ]
    tested = np.bincount(np.concatenate([fold.test for fold in folds]), minlength=len(manifest))
    if tested.max() > 1:
        problems.append(f"{int((tested > 1).sum())} utterances are tested more than once.")
    # A split of the data's own tests one part; all other folds take turns with everybody.
    if len(folds) > 1 and not tested.all():
        problems.append(f"{int((tested == 0).sum())} utterances are tested in no fold.")
    for system, table in predictions.items():
        problems += _check_rows(system, table, manifest, folds)
    for system, entries in ledgers.items():
        for fold in folds:
            if fold.number not in entries:
                problems.append(f"{system}/{fold.name}: nothing was recorded.")
                continue
            problems += audit_entries(system, fold, entries[fold.number], groups)
    everybody = final_fold(manifest)
    for system, of_final in finals.items():
        problems += audit_entries(system, everybody, of_final, groups)
    return {
        "verdict": "leakage found" if problems else "no leakage found",
        "problems": problems,
        "held_out_unit": unit,
        "n_folds": len(folds),
        "n_tested": int((tested > 0).sum()),
        "n_utterances": len(manifest),
        "systems": {
            system: {"folds": len(by_fold)} | _count(chain.from_iterable(by_fold.values()))
            for system, by_fold in ledgers.items()
        },
        "final_models": {system: _count(of_final) for system, of_final in finals.items()},
    }


def _count(entries: Iterable[dict[str, Any]]) -> dict[str, Any]:
    by_role = count_roles(entries)
    return {"fits_and_choices": sum(by_role.values()), "by_role": by_role}


def _check_rows(
    system: str, table: Predictions, manifest: Manifest, folds: Sequence[Fold]
) -> list[str]:
    """Say where a system is scored on other rows, folds, people or labels than it should be."""
    rows = np.sort(np.concatenate([fold.test for fold in folds]))
    if table.utterances.tolist() != manifest.utterances[rows].tolist():
        return [f"{system} is scored on other utterances than the outer folds test."]
    numbers = np.full(len(manifest), -1)
    for fold in folds:
        numbers[fold.test] = fold.number
    truth = np.array(manifest.classes)[manifest.labels[rows]]
    expected = {
        "folds": (table.folds, numbers[rows]),
        "speakers": (table.speakers, manifest.speakers[rows]),
        "labels": (np.array(table.classes)[table.labels], truth),
    }
    return [
        f"{system} is scored with other {name} than the data's, first in {utterance}."
        for name, (found, right) in expected.items()
        for utterance in table.utterances[found != right][:1].tolist()
    ]
