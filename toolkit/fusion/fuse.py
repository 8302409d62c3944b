"""All late systems of a study at once, derived again from finished units in seconds."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from toolkit.fusion.inputs import MAX_VOTERS, BasePredictions, apply_rule, in_order, outer_panel
from toolkit.fusion.late import (
    average,
    best_single,
    count_votes,
    stack,
    tied_votes,
    weighted_vote,
)
from toolkit.fusion.offsets import OFFSET_METRICS, ClassOffsets, offset_system
from toolkit.systems import variant_name
from toolkit.validation.ledger import Ledger

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from toolkit.validation.folds import Fold
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
    right = {table.system: table.y_pred == labels for table in [*modalities, *fusions, best]}
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
        count("agreement", first.y_pred == second.y_pred, *pair, both)
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
    voters: Sequence[BasePredictions],
    early: BasePredictions | None = None,
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
    voters : sequence of BasePredictions
        One to eight modalities, in any order. Of a single one only the offset variants are
        made, for there is nothing to fuse.
    early : BasePredictions, optional
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
    fused: dict[str, BasePredictions] = {}
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
            name = variant_name(voter.system, f"offset-{end}")
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
    voters: Sequence[BasePredictions],
    early: BasePredictions | None,
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
