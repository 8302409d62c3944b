"""Shares of a system's contributions by modality, family and statistic.

A share is the sum over utterances and classes of the magnitude of a modality's joint
contribution, normalised, so features of one modality that cancel add nothing. Its reference is
the same share under permuted labels. The share of single magnitudes is given beside it as
``grows_with_width``, since noise makes it grow with the number of features.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations, product
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from toolkit.explain.contributions import Explainer, Totals, centre, family_of
from toolkit.explain.shapley import GameRecord, PermutationRecord
from toolkit.models import Features
from toolkit.validation import Fold, Predictions
from toolkit.validation.blending import linear_path
from toolkit.validation.fits import InnerFits
from toolkit.validation.folds import derive_seed, permute_labels
from toolkit.validation.ledger import Ledger
from toolkit.validation.scores import jackknife_interval

_OUTCOMES: Final = ("all", "right", "wrong")


@dataclass(frozen=True, slots=True)
class ShareRecord:
    """The share of one part of a system's contributions.

    Parameters
    ----------
    system, level : str
        The system; ``"modality"``, ``"family"`` or ``"statistic"``, whose parts add up to 1.
    modality, part : str
        Modality, and family or statistic; the latter empty at the level of modalities.
    outcome : str
        Utterances counted: ``"all"``, or those predicted ``"right"`` or ``"wrong"``.
    speaker, class_name : str
        The speaker of the utterances and the class of the margin; empty for all.
    n : int
        Number of utterances.
    share : float
        Share of the magnitudes of joint contributions, centred over the classes.
    low, high : float or None
        Ends of its 95 % jackknife interval over speakers; None for a single speaker.
    permuted, permuted_low, permuted_high : float or None
        The same share under labels permuted within speakers (where none has two labels,
        exchanged between them): mean, smallest and largest over the repeats. None without such
        a run.
    grows_with_width : float or None
        Share of the sum of single magnitudes, which grows with the number of features; None
        for a pool of margins.
    grows_with_width_permuted : float or None
        The same under permuted labels.
    toward_truth : float
        Mean contribution to the margin of the true class, centred; below 0 it misleads.
    """

    system: str
    level: str
    modality: str
    part: str
    outcome: str
    speaker: str
    class_name: str
    n: int
    share: float
    low: float | None
    high: float | None
    permuted: float | None
    permuted_low: float | None
    permuted_high: float | None
    grows_with_width: float | None
    grows_with_width_permuted: float | None
    toward_truth: float


def compute_shares(
    predictions: Predictions, totals: Totals, permuted: Sequence[Totals] = ()
) -> list[ShareRecord]:
    """Compute shares by modality, family and statistic, outcome, speaker and class.

    Rows of the totals are those of the predictions, or ValueError is raised; rows that no model
    explains are left out. `permuted` are totals of the same rows by models trained on permuted
    labels. Scopes without any utterance are left out; statistics are of all speakers together.
    """
    for total in (totals, *permuted):
        if len(total.signed) != len(predictions):
            raise ValueError(
                f"Contributions of {len(total.signed)} rows do not belong to the "
                f"{len(predictions)} predictions of {predictions.system!r}."
            )
    speakers = np.unique(predictions.speakers)
    records: list[ShareRecord] = []
    for level in ("modality", "family", "statistic"):
        # Under permuted labels screening may keep a part that the system itself never uses.
        every_part = chain.from_iterable(total.parts for total in (totals, *permuted))
        parts = list(dict.fromkeys(_part(part, level) for part in every_part))
        tally, *references = (
            _tally(predictions, total, level, parts) for total in (totals, *permuted)
        )
        # Statistics are many: speaker by speaker they would drown the rest.
        scopes = product(
            range(len(_OUTCOMES)),
            range(-1, 0 if level == "statistic" else len(speakers)),
            range(-1, len(predictions.classes)),
        )
        for scope in scopes:
            records += _records(predictions, level, parts, tally, references, scope)
    return records


class _Tally(NamedTuple):
    """Sums by outcome, speaker, class and part; counts by outcome, speaker and true class."""

    joint: NDArray[np.float64]
    single: NDArray[np.float64]
    truth: NDArray[np.float64]
    n: NDArray[np.int64]
    speakers: list[str]


def _part(part: tuple[str, str], level: str) -> tuple[str, str]:
    modality, statistic = part
    names = {"modality": "", "family": family_of(statistic)}
    names["statistic"] = statistic.rpartition(": ")[2]  # the functional, in any family
    return modality, names[level]


def _tally(
    predictions: Predictions, totals: Totals, level: str, parts: list[tuple[str, str]]
) -> _Tally:
    belongs = np.zeros((len(totals.parts), len(parts)))
    for row, part in enumerate(totals.parts):
        belongs[row, parts.index(_part(part, level))] = 1
    centred = centre(totals.signed @ belongs, totals.trained)
    single = totals.absolute @ belongs
    explained = totals.trained.any(axis=1)
    right = predictions.y_pred == predictions.labels
    names, speakers = np.unique(predictions.speakers, return_inverse=True)
    shape = (len(_OUTCOMES), len(names), len(predictions.classes), len(parts))
    sums = np.zeros((3, *shape))
    counts = np.zeros(shape[:3], dtype=np.int64)
    rows = np.arange(len(predictions))
    # Only the true class's margin counts toward the truth.
    truth = np.zeros_like(centred)
    truth[rows, predictions.labels] = centred[rows, predictions.labels]
    for outcome, chosen in enumerate((explained, explained & right, explained & ~right)):
        for kind, values in enumerate((np.abs(centred), single, truth)):
            np.add.at(sums[kind, outcome], speakers[chosen], values[chosen])
        np.add.at(counts[outcome], (speakers[chosen], predictions.labels[chosen]), 1)
    return _Tally(sums[0], sums[1], sums[2], counts, names.tolist())


def _records(  # noqa: PLR0917
    predictions: Predictions,
    level: str,
    parts: list[tuple[str, str]],
    tally: _Tally,
    references: list[_Tally],
    scope: tuple[int, int, int],
) -> Iterator[ShareRecord]:
    """Yield the shares of one outcome, speaker and class; -1 is all speakers or classes."""
    outcome, speaker, code = scope
    people = slice(None) if speaker < 0 else [speaker]
    classes = slice(None) if code < 0 else [code]

    def total(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(sums[outcome, people][:, classes].sum(axis=(0, 1)))

    n = int(tally.n[outcome, people].sum())
    joint = tally.joint[outcome, people][:, classes].sum(axis=1)
    if n == 0 or joint.sum() == 0:
        return
    shares = _normalise(joint.sum(axis=0))
    single = _normalise(total(tally.single))
    # Speakers without a counted utterance leave nothing out; few have no interval.
    counted = joint.sum(axis=1) > 0
    left_out = _normalise((joint.sum(axis=0) - joint)[counted])
    sizes = tally.n[outcome, people].sum(axis=1)[counted]
    ends = [
        jackknife_interval(float(share), without, sizes, low=0, high=1)
        for share, without in zip(shares, left_out.T, strict=True)
    ]
    permuted = np.array([_normalise(total(one.joint)) for one in references])
    permuted_single = np.array([_normalise(total(one.single)) for one in references])
    n_true = int(tally.n[outcome, people][:, classes].sum())
    truth = total(tally.truth) / max(n_true, 1)
    for k, (modality, part) in enumerate(parts):
        yield ShareRecord(
            system=predictions.system,
            level=level,
            modality=modality,
            part=part,
            outcome=_OUTCOMES[outcome],
            speaker="" if speaker < 0 else tally.speakers[speaker],
            class_name="" if code < 0 else predictions.classes[code],
            n=n,
            share=float(shares[k]),
            low=ends[k][0],
            high=ends[k][1],
            permuted=float(permuted[:, k].mean()) if references else None,
            permuted_low=float(permuted[:, k].min()) if references else None,
            permuted_high=float(permuted[:, k].max()) if references else None,
            grows_with_width=float(single[k]) if single.any() else None,
            grows_with_width_permuted=(
                float(permuted_single[:, k].mean()) if references else None
            ),
            toward_truth=float(truth[k]),
        )


def _normalise(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    total = sums.sum(axis=-1, keepdims=True)
    return np.asarray(sums / np.where(total > 0, total, 1))


def explain_permuted(
    features: Features,
    labels: NDArray[np.int64],
    speakers: NDArray[np.str_],
    fold: Fold,
    params: Mapping[str, Any],
    *,
    n_rounds: int,
    n_classes: int,
    ledger: Ledger,
    seed: int,
    n_repeats: int,
    linear: Mapping[str, Any] | None = None,
    dimensions: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> list[Totals]:
    """Refit a unit on permuted labels, trees and linear part, and explain its held-out rows.

    Parameters
    ----------
    features : Features
        Features of the system.
    labels : ndarray of int64, shape (n,)
        Labels of all utterances.
    speakers : ndarray of str, shape (n,)
        Speaker of every utterance.
    fold : Fold
        The outer fold.
    params : mapping
        The parameters chosen by the unit's search.
    n_rounds, n_classes : int
        The rounds chosen by the unit's search; number of the study's classes.
    ledger : Ledger
        The ledger of the rows of every fit.
    seed : int
        The unit's seed.
    n_repeats : int
        Permutations.
    linear : mapping, optional
        The unit's record of its linear part: its penalty, and the weights of both parts.
    dimensions : mapping of str to sequence of str, default={}
        Names of dimensions, as :meth:`Explainer.of` takes them.

    Returns
    -------
    list of Totals
        Of the test rows that have the modality, in their order.
    """
    rows = fold.train[features.present[fold.train]]
    tested = fold.test[features.present[fold.test]]
    shared: Any = {"n_classes": n_classes, "ledger": ledger, "seed": seed}
    bins = InnerFits(features, labels, rows, **shared)
    totals = []
    for repeat in range(n_repeats):
        # Among the training rows alone: they keep their classes where labels move between
        # speakers.
        shuffled = labels.copy()
        own = derive_seed(seed, "permuted", repeat)
        shuffled[rows] = permute_labels(labels[rows], speakers[rows], own)
        fits = InnerFits(features, shuffled, rows, **shared, bins=bins)
        fit = f"permuted labels {repeat}"
        booster, prepared = fits.fit_coarse(params, rows, fit=fit, n_rounds=n_rounds)
        if linear is not None:
            path, _ = linear_path(fits, params, rows, fit=fit, made_as=fit)
            booster = replace(
                booster,
                linear=path.fit(linear["C_times_p"]),
                weights=(linear["linear"], linear["trees"]),
            )
        X = prepared.features.take(tested, prepared.columns)
        totals.append(Explainer.of(booster, dimensions).total(X))
    return totals


@dataclass(frozen=True, slots=True)
class LinearRecord:
    """The linear part's share of a system's contributions; without modality, of all of them.

    - share: Magnitudes of the linear part's joint contributions by modality, centred over the
      classes, in proportion to those of linear part and trees.
    - low, high: 95 % jackknife interval over speakers; None for a single speaker.
    """

    system: str
    modality: str
    share: float
    low: float | None
    high: float | None


def _by_modality(
    parts: Sequence[tuple[str, str]], modalities: Sequence[str]
) -> NDArray[np.float64]:
    """Mark the modality of each part, shape (n_parts, n_modalities), to add parts up by it."""
    return np.array([[float(part[0] == name) for name in modalities] for part in parts])


def compute_linear_shares(predictions: Predictions, totals: Totals) -> list[LinearRecord]:
    """Compute how much of a system's contributions is linear, in all and by modality.

    ``totals`` are as of :func:`compute_shares`. Nothing is returned without a linear part, or
    where neither part contributes anything.
    """
    if totals.weights is None or totals.linear is None or totals.trees is None:
        return []
    modalities = list(dict.fromkeys(modality for modality, _ in totals.parts))
    belongs = _by_modality(totals.parts, modalities)
    speakers = np.unique(predictions.speakers, return_inverse=True)[1]
    sums = np.zeros((2, speakers.max() + 1, len(modalities)))
    for kind, values in enumerate((totals.linear, totals.trees)):
        weighted = totals.weights[:, kind, None, None] * values
        sizes = np.abs(centre(weighted @ belongs, totals.trained)).sum(axis=1)
        np.add.at(sums[kind], speakers, sizes)
    records = []
    rows = np.bincount(speakers)
    for k, modality in enumerate(["", *modalities]):
        linear, trees = sums.sum(axis=2) if k == 0 else sums[:, :, k - 1]
        both = linear + trees
        rest = both.sum() - both
        if not both.sum():
            continue
        share = float(linear.sum() / both.sum())
        counted = (both > 0) & (rest > 0)
        left_out = (linear.sum() - linear)[counted] / rest[counted]
        ends = jackknife_interval(share, left_out, rows[counted], low=0, high=1)
        records.append(LinearRecord(predictions.system, modality, share, *ends))
    return records


OTHERS: Final = "all other features"
"""Name of a sample's last column, the joint contribution of the features not shown."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Contributions of a system's most important features, as plots show them.

    - names: The features, then :data:`OTHERS`, so that a row adds up to its margin.
    - contributions: shape (n_rows, n_classes, n_names).
    - values: shape (n_rows, n_names), of the features; NaN where missing and for the others.
    - base: shape (n_rows, n_classes), expected margins.
    """

    names: tuple[str, ...]
    contributions: NDArray[np.float64]
    values: NDArray[np.float32]
    base: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PlayerRecord:
    """A modality, or a pair of them, as players inside the models of a system.

    - kind: ``"value"`` of a modality or ``"interaction"`` of a pair.
    - players: The modality, or two joined by ``"+"``.
    - share: Share of the magnitudes of all modalities' values, also for a pair.
    - summed: The modality's share where its features are the players; None for a pair.
    - difference: Magnitude by which the two attributions differ, in the same total; it can be 0
      where modalities interact. None for a pair.
    """

    system: str
    kind: str
    players: str
    share: float
    summed: float | None
    difference: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Attribution:
    """A study's attribution of its predictions to modalities.

    ``system`` is that of all modalities (``early``), or the only one; ``importance`` and
    ``players`` are of it alone, as the ``n_permuted`` permutations of labels are. ``linear`` is
    empty without linear parts. The mappings have the name of every explained system; totals
    hold one row per tested utterance.
    """

    system: str
    modalities: tuple[str, ...]
    shares: Sequence[ShareRecord]
    games: Sequence[GameRecord]
    importance: Sequence[PermutationRecord]
    players: Sequence[PlayerRecord]
    totals: Mapping[str, Totals]
    samples: Mapping[str, Sample]
    linear: Sequence[LinearRecord] = ()
    n_permuted: int = 0

    @property
    def compared(self) -> tuple[str, ...]:
        """Modalities of the games, which late fusions play without early; else the system's."""
        played = tuple(r.players for r in self.games if (r.kind, r.group) == ("value", ""))
        return tuple(dict.fromkeys(played)) or self.modalities


def compare_players(
    system: str,
    modalities: Sequence[str],
    totals: Totals,
    values: NDArray[np.float64],
    interactions: NDArray[np.float64],
) -> list[PlayerRecord]:
    """Compare modalities as players inside the models with summed contributions of features.

    ``values`` are (n_rows, n_classes, n_modalities); ``interactions`` have one axis more.
    """
    players = centre(values, totals.trained)
    belongs = _by_modality(totals.parts, modalities)
    summed = centre(totals.signed @ belongs, totals.trained)
    # A model that uses no feature has no magnitudes to divide.
    whole = float(np.abs(players).sum()) or 1.0
    by_sum = np.abs(summed).sum(axis=(0, 1))
    records = []
    for k, name in enumerate(modalities):
        share = float(np.abs(players[:, :, k]).sum()) / whole
        share_summed = float(by_sum[k] / (by_sum.sum() or 1.0))
        difference = float(np.abs(players[:, :, k] - summed[:, :, k]).sum()) / whole
        records.append(PlayerRecord(system, "value", name, share, share_summed, difference))
    pairs = centre(interactions, totals.trained)
    for a, b in combinations(range(len(modalities)), 2):
        name = f"{modalities[a]}+{modalities[b]}"
        share = float(np.abs(pairs[:, :, a, b]).sum()) / whole
        records.append(PlayerRecord(system, "interaction", name, share, None, None))
    return records
