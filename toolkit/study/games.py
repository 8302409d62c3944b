"""The games over modalities of a study, from the predictions of its systems."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

from toolkit.explain import (
    MAX_PLAYERS,
    RULES,
    GameRecord,
    add_seed_noise,
    late_systems,
    play_game,
)
from toolkit.models import class_shares
from toolkit.study.seed_noise import read_seeded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from toolkit.data import Manifest
    from toolkit.validation import Fold, Predictions


def play_games(
    folder: Path,
    manifest: Manifest,
    folds: Sequence[Fold],
    predictions: Mapping[str, Predictions],
    players: Sequence[str],
    *,
    metric: str,
) -> tuple[list[GameRecord], dict[str, Mapping[int, list[dict[str, Any]]]]]:
    """Play every game that the finished systems of a study allow."""
    records = _play(manifest, folds, predictions, players, metric)
    if not records:
        return [], {}
    names = {subset_name(some, players): some for some in _subsets(players)}
    seeds, ledgers = read_seeded(folder, manifest, folds, names)
    majority = {"majority": predictions["majority"]}
    again = [_play(manifest, folds, majority | one, players, metric) for one in seeds]
    return add_seed_noise(records, again), ledgers


def _play(
    manifest: Manifest,
    folds: Sequence[Fold],
    predictions: Mapping[str, Predictions],
    players: Sequence[str],
    metric: str,
) -> list[GameRecord]:
    """Play the games over late fusion, and the one by refit where every set was run."""
    if not (2 <= len(players) <= MAX_PLAYERS and predictions.keys() >= set(players)):
        return []
    shares = {
        fold.number: class_shares(manifest.labels[fold.train], len(manifest.classes))
        for fold in folds
    }
    tables = [predictions[name] for name in players]
    majority = predictions["majority"]
    records = []
    for rule in RULES:
        systems = late_systems(tables, majority, shares, rule=rule)
        records += play_game(f"late-{rule}", players, systems, metric=metric)
    refit = refit_systems(players, predictions)
    if refit is not None:
        records += play_game("refit", players, refit, metric=metric)
    return records


def refit_systems(
    singles: Sequence[str], predictions: Mapping[str, Predictions]
) -> dict[frozenset[str], Predictions] | None:
    """Gather the early fusion of every set of modalities."""
    names = {some: subset_name(some, singles) for some in _subsets(singles)}
    if not predictions.keys() >= set(names.values()):
        return None
    systems = {frozenset[str](): predictions["majority"]}
    return systems | {frozenset(some): predictions[name] for some, name in names.items()}


def _subsets(players: Sequence[str]) -> list[tuple[str, ...]]:
    return [some for size in range(1, len(players) + 1) for some in combinations(players, size)]


def subset_name(some: Sequence[str], players: Sequence[str]) -> str:
    """Name the system of a set of modalities.

    Examples
    --------
    >>> subset_name(["audio", "text"], ["visual", "audio", "text"])
    'early-audio-text'
    """
    if len(some) == 1:
        return some[0]
    return "early" if len(some) == len(players) else f"early-{'-'.join(some)}"
