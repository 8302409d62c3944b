"""The fusion ledger: which utterances a fusion mends and which it spoils, and for whom.

Two systems of equal accuracy can be right about different people. The ledger counts, over
all utterances, for every class and for every speaker, what scores cannot show. Its counts
come from the reported predictions alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from toolkit.fusion.late import tied_votes
from toolkit.fusion.panels import outer_panel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from toolkit.validation.predictions import Predictions


@dataclass(frozen=True, slots=True)
class FusionRecord:
    """One count of the fusion ledger.

    Parameters
    ----------
    system : str
        What is counted: a modality, a fusion, or ``"oracle"``.
    reference : str
        What it is held against: ``"best-single"``, the other modality of a pair, or empty.
    scope : str
        ``"all"``, ``"class"`` (the true one) or ``"speaker"``.
    group : str
        The class or speaker; empty in scope ``"all"``.
    quantity : str
        What :func:`fusion_records` lists.
    value : int
        Number of utterances.
    n : int
        Number of utterances among which they were counted.
    """

    system: str
    reference: str
    scope: str
    group: str
    quantity: str
    value: int
    n: int


def fusion_records(
    modalities: Sequence[Predictions], fusions: Sequence[Predictions], best: Predictions
) -> list[FusionRecord]:
    """Count what fusions change, and what there was to be gained.

    Parameters
    ----------
    modalities : sequence of Predictions
        The systems of one modality each, at least two.
    fusions : sequence of Predictions
        The fused systems, early fusion included.
    best : Predictions
        The modality that was chosen in every fold: the system ``best-single``. All are
        aligned.

    Returns
    -------
    list of FusionRecord
        Every quantity over all utterances, then class by class, then speaker by speaker:

        - ``absent`` of every modality and fusion: it had nothing to see;
        - ``fixed`` and ``broken`` of every fusion, reference ``best-single``: the fusion is
          right and the modality wrong, and the other way round;
        - ``right`` of the ``oracle``: some modality is right, which no choice among them
          can surpass;
        - ``ties`` of ``vote``: several classes have most votes, and ``ties_right``: of these
          the vote's decision is right (both only if the vote is among the fusions);
        - ``agreement`` and ``double_fault`` of every pair of modalities, the second in the
          column of the reference: both decide for one class, and both are wrong; among the
          utterances where both are present.

    References
    ----------
    Giacinto, G. and Roli, F. (2001). Design of effective neural network ensembles for image
    classification purposes. Image and Vision Computing 19 (double fault).
    """
    modalities = sorted(modalities, key=lambda table: table.system)
    labels = best.labels
    right = {table.system: table.decided == labels for table in [*modalities, *fusions, best]}
    everything = np.ones_like(best.present)
    records: list[FusionRecord] = []

    def count(
        quantity: str,
        flags: NDArray[np.bool_],
        system: str,
        reference: str = "",
        among: NDArray[np.bool_] = everything,
    ) -> None:
        for scope, group, value, n in _scopes(best, flags, among):
            records.append(FusionRecord(system, reference, scope, group, quantity, value, n))

    for table in [*modalities, *fusions]:
        count("absent", ~table.present, table.system)
    for table in fusions:
        ours, theirs = right[table.system], right[best.system]
        count("fixed", ours & ~theirs, table.system, best.system)
        count("broken", theirs & ~ours, table.system, best.system)
    count("right", np.any([right[table.system] for table in modalities], axis=0), "oracle")
    if "vote" in right:
        no_shares = dict.fromkeys(best.folds.tolist(), np.zeros(len(best.classes)))
        ties = tied_votes(outer_panel(modalities, no_shares))
        count("ties", ties, "vote")
        count("ties_right", ties & right["vote"], "vote", among=ties)
    for first, second in combinations(modalities, 2):
        pair, both = (first.system, second.system), first.present & second.present
        count("agreement", first.decided == second.decided, *pair, both)
        wrong = ~right[first.system] & ~right[second.system]
        count("double_fault", wrong, *pair, both)
    return records


def _scopes(
    table: Predictions, flags: NDArray[np.bool_], among: NDArray[np.bool_]
) -> Iterator[tuple[str, str, int, int]]:
    """Count flags among some rows: over all, class by class, speaker by speaker."""
    speakers, numbers = np.unique(table.speakers, return_inverse=True)
    groupings = (
        ("all", ("",), np.zeros_like(table.labels)),
        ("class", table.classes, table.labels),
        ("speaker", tuple(speakers.tolist()), numbers),
    )
    for scope, names, codes in groupings:
        n = np.bincount(codes[among], minlength=len(names)).tolist()
        values = np.bincount(codes[flags & among], minlength=len(names)).tolist()
        for name, value, total in zip(names, values, n, strict=True):
            yield scope, name, value, total
