"""All late systems of a study at once, derived again from finished units in seconds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from toolkit.fusion.late import average, best_single, count_votes
from toolkit.fusion.ledger import FusionRecord, fusion_records
from toolkit.fusion.offsets import OFFSET_METRICS, ClassOffsets, offset_system
from toolkit.fusion.panels import apply_rule
from toolkit.fusion.stacking import stack
from toolkit.fusion.voters import MAX_VOTERS, Voter, in_order
from toolkit.fusion.weighting import weighted_vote
from toolkit.validation.ledger import Ledger

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from toolkit.validation.folds import Fold
    from toolkit.validation.predictions import Predictions

LATE_METHODS: Final = ("vote", "soft", "weighted", "stacked", "hybrid")
"""Late fusions, in the order of the tables."""


@dataclass(frozen=True, slots=True, eq=False)
class FusionResult:
    """Late systems, and all that was learnt for them.

    Parameters
    ----------
    predictions : mapping of str to Predictions
        ``best-single``, then the fusions asked for.
    offsets : mapping of str to Predictions
        The variants ``<system>-offset-f1`` and ``<system>-offset-uar``.
    chosen : mapping of int to str
        Number of every outer fold to the modality that ``best-single`` takes there.
    weights : mapping of int to mapping of str to float
        Number of every outer fold to the weights of ``weighted``; empty if not asked for.
    penalties : mapping of int to float
        Number of every outer fold to the C of ``stacked``; empty if not asked for.
    class_offsets : mapping of str to mapping of int to ClassOffsets
        Variant and number of outer fold to the offsets found there.
    ledgers : mapping of str to mapping of int to list of dict
        System and number of outer fold to the ledger's entries: the rows that its fits and
        choices touched. Systems that learn nothing have none.
    records : tuple of FusionRecord
        The fusion ledger.
    """

    predictions: Mapping[str, Predictions]
    offsets: Mapping[str, Predictions]
    chosen: Mapping[int, str]
    weights: Mapping[int, Mapping[str, float]]
    penalties: Mapping[int, float]
    class_offsets: Mapping[str, Mapping[int, ClassOffsets]]
    ledgers: Mapping[str, Mapping[int, list[dict[str, Any]]]]
    records: tuple[FusionRecord, ...]


def fuse_all(
    voters: Sequence[Voter],
    early: Voter | None = None,
    *,
    folds: Sequence[Fold],
    utterances: NDArray[np.str_],
    groups: NDArray[np.str_],
    methods: Collection[str] = LATE_METHODS,
    offsets: Collection[str] = tuple(OFFSET_METRICS),
    metric: str = "f1_micro",
) -> FusionResult:
    """Derive every late system, its variants and the fusion ledger.

    Parameters
    ----------
    voters : sequence of Voter
        One to eight modalities, in any order. Of a single one only the offset variants are
        made, for there is nothing to fuse.
    early : Voter, optional
        Early fusion of the same modalities; ``hybrid`` needs it.
    folds : sequence of Fold
        The outer folds.
    utterances, groups : ndarray of str
        Of all the manifest's rows: identifiers, and the speakers (the sessions, where those
        are held out).
    methods : collection of str, default=LATE_METHODS
        Late fusions to make, some of :data:`LATE_METHODS`; other names are refused.
    offsets : collection of str, default=("f1", "uar")
        Variants to make of every modality, of early fusion and of every late one, some keys
        of :data:`OFFSET_METRICS`.
    metric : str, default="f1_micro"
        What the inner scores are, of which ``best-single`` takes the best.

    Returns
    -------
    FusionResult
        The same, to the last bit, whatever the order of voters, methods and offsets.

    Raises
    ------
    LeakageError
        If a held-out row was about to take part in a fit or choice.
    ValueError
        If voters are not aligned, or a method cannot be made of them.
    """
    _check_request(voters, early, methods, offsets)
    ledgers: dict[str, dict[int, Ledger]] = {}

    def open_ledgers(system: str) -> dict[int, Ledger]:
        opened = {fold.number: Ledger(system, fold, utterances, groups) for fold in folds}
        return ledgers.setdefault(system, opened)

    ordered = in_order(voters) if len(voters) > 1 else list(voters)
    everyone = ordered if early is None else in_order([*ordered, early])
    fused: dict[str, Voter] = {}
    chosen: dict[int, str] = {}
    weights: dict[int, dict[str, float]] = {}
    penalties: dict[int, float] = {}
    if len(ordered) > 1:
        best, chosen = best_single(ordered, open_ledgers("best-single"), metric=metric)
    if "vote" in methods:
        fused["vote"] = apply_rule("vote", ordered, count_votes)
    if "soft" in methods:
        fused["soft"] = apply_rule("soft", ordered, average)
    if "weighted" in methods:
        fused["weighted"], weights = weighted_vote(ordered, open_ledgers("weighted"))
    if "stacked" in methods:
        fused["stacked"], penalties = stack(ordered, open_ledgers("stacked"))
    if "hybrid" in methods:
        fused["hybrid"] = apply_rule("hybrid", everyone, average)
    variants: dict[str, Predictions] = {}
    class_offsets: dict[str, dict[int, ClassOffsets]] = {}
    for voter in [*everyone, *fused.values()]:
        for end in (end for end in OFFSET_METRICS if end in offsets):
            name = f"{voter.system}-offset-{end}"
            variants[name], class_offsets[name] = offset_system(voter, end, open_ledgers(name))
    predictions = {system: voter.predictions for system, voter in fused.items()}
    records: list[FusionRecord] = []
    if len(ordered) > 1:
        fusions = [*([] if early is None else [early.predictions]), *predictions.values()]
        singles = [voter.predictions for voter in ordered]
        records = fusion_records(singles, fusions, best.predictions)
        predictions = {best.system: best.predictions} | predictions
    return FusionResult(
        predictions=MappingProxyType(predictions),
        offsets=MappingProxyType(variants),
        chosen=MappingProxyType(chosen),
        weights=MappingProxyType(weights),
        penalties=MappingProxyType(penalties),
        class_offsets=MappingProxyType(class_offsets),
        ledgers=MappingProxyType(
            {
                system: {fold: ledger.entries() for fold, ledger in opened.items()}
                for system, opened in ledgers.items()
            }
        ),
        records=tuple(records),
    )


def _check_request(
    voters: Sequence[Voter],
    early: Voter | None,
    methods: Collection[str],
    offsets: Collection[str],
) -> None:
    names = [voter.system for voter in voters]
    if not 1 <= len(voters) <= MAX_VOTERS:
        raise ValueError(f"Got {len(voters)} modalities; expected 1 to {MAX_VOTERS}.")
    if unknown := sorted(set(methods) - set(LATE_METHODS)):
        raise ValueError(f"Unknown late fusions {unknown}; choose among {list(LATE_METHODS)}.")
    if unknown := sorted(set(offsets) - set(OFFSET_METRICS)):
        raise ValueError(f"Unknown offsets {unknown}; choose among {list(OFFSET_METRICS)}.")
    if len(voters) == 1 and (methods or early is not None):
        raise ValueError(
            f"A fusion needs two modalities or more, got {names}; expected no methods and no "
            "early fusion with a single one."
        )
    if "hybrid" in methods and early is None:
        raise ValueError(
            "The system 'hybrid' needs early fusion as one of its voters, and there is none; "
            "run 'early' as well or leave 'hybrid' out."
        )
