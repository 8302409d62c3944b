"""Shares, games and importances of a study, derived from the explanations that it keeps."""

from __future__ import annotations

import json
from dataclasses import astuple, fields, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from toolkit.explain import (
    MAX_PLAYERS,
    RULES,
    GameRecord,
    PermutationRecord,
    ShareRecord,
    add_seed_noise,
    compute_importance,
    compute_shares,
    join_totals,
    late_systems,
    play_game,
)
from toolkit.explain.contributions import parse_names
from toolkit.explain.shares import Attribution, PlayerRecord, Sample, compare_players
from toolkit.files import format_csv
from toolkit.models import class_priors
from toolkit.study.explaining import (
    PERMUTED,
    SUMMARY,
    contributions_folder,
    model_sums,
    read_totals,
    tested_rows,
)
from toolkit.study.folder import check_sums, read_modalities, read_unit, unit_folder
from toolkit.study.searching import make_search_options
from toolkit.study.systems import list_systems
from toolkit.systems import early_name, list_subsets, variant_name
from toolkit.validation import derive_seed, gather_predictions

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from toolkit.data import Manifest
    from toolkit.explain import Totals
    from toolkit.study.config import StudyConfig
    from toolkit.validation import Fold, Predictions, SearchOptions, UnitResult

N_SEEDS: Final = 3
"""Seeds under which every system is searched again."""

_WIDE: Final = ("rich", "full", "auto")


def list_seeded(
    config: StudyConfig, modalities: Sequence[str]
) -> dict[str, tuple[int, tuple[str, ...]]]:
    """List the systems that run under other seeds."""
    if config.shapley != "seeds" or len(modalities) < 2:
        return {}
    return {
        variant_name(system, f"seed-{number}"): (
            derive_seed(config.seed, "seed noise", number),
            seen,
        )
        for number in range(1, N_SEEDS + 1)
        for system, seen in list_systems(config, modalities).items()
    }


def quick_config(config: StudyConfig) -> StudyConfig:
    """Give a study the budget of ``--quick``."""
    statistics = "basic" if config.statistics in _WIDE else config.statistics
    return config.model_copy(update={"quick": True, "statistics": statistics})


def make_quick_options(config: StudyConfig) -> SearchOptions:
    """Say what the searches under other seeds may choose."""
    quick = quick_config(config)
    return replace(make_search_options(quick), statistics=(quick.statistics,))


def read_seeded(
    folder: Path,
    manifest: Manifest,
    folds: Sequence[Fold],
    systems: Mapping[str, Sequence[str]],
) -> tuple[list[dict[str, Predictions]], dict[str, Mapping[int, list[dict[str, Any]]]]]:
    """Read what the systems predicted under other seeds."""
    seeds: list[dict[str, Predictions]] = []
    ledgers: dict[str, Mapping[int, list[dict[str, Any]]]] = {}
    for number in range(1, N_SEEDS + 1):
        tables: dict[str, Predictions] = {}
        for system, seen in systems.items():
            name = variant_name(system, f"seed-{number}")
            places = [unit_folder(folder, name, fold.number) for fold in folds]
            if any(read_modalities(place) != list(seen) for place in places):
                continue
            units: list[UnitResult] = [u for p in places if (u := read_unit(p)) is not None]
            ledgers[name] = {unit.fold: unit.ledger for unit in units}
            tables[system] = gather_predictions(
                manifest, folds, system, [u.proba for u in units], [u.present for u in units]
            )
        seeds.append(tables)
    return seeds, ledgers


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
    names = {early_name(some, players): some for some in list_subsets(players)}
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
        fold.number: class_priors(manifest.labels[fold.train], len(manifest.classes))
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
    names = {some: early_name(some, singles) for some in list_subsets(singles)}
    if not predictions.keys() >= set(names.values()):
        return None
    systems = {frozenset[str](): predictions["majority"]}
    return systems | {frozenset(some): predictions[name] for some, name in names.items()}


def derive_evidence(
    folder: Path,
    manifest: Manifest,
    folds: Sequence[Fold],
    predictions: Mapping[str, Predictions],
    *,
    metric: str,
    games: bool = True,
) -> tuple[Attribution | None, dict[str, Mapping[int, list[dict[str, Any]]]], dict[str, str]]:
    """Derive what a study knows of which modality drives it."""
    singles = [name for name in manifest.available if name in predictions]
    explained = {
        system: summary
        for system in [*singles, "early"]
        if system in predictions
        and (summary := _read_summary(folder, system, folds)) is not None
    }
    if not explained:
        return None, {}, {}
    main = "early" if "early" in explained else next(iter(explained))
    nulls = _read_nulls(folder, main, folds)
    totals = {
        system: read_totals(contributions_folder(folder, system), "", summary["parts"])
        for system, summary in explained.items()
    }
    permuted, importance = _collect_nulls(folder, main, manifest, folds, nulls)
    shares: list[ShareRecord] = []
    for system, total in totals.items():
        shares += compute_shares(predictions[system], total, permuted if system == main else ())
    modalities = tuple(explained[main]["modalities"])
    played: Sequence[GameRecord] = ()
    ledgers: dict[str, Mapping[int, list[dict[str, Any]]]] = {}
    if games:
        # Over what the fusion of all sees: a modality that was left out since is no player.
        players = [name for name in singles if main != "early" or name in modalities]
        played, ledgers = play_games(
            folder, manifest, folds, predictions, players, metric=metric
        )
    evidence = Attribution(
        system=main,
        modalities=modalities,
        shares=shares,
        games=played,
        importance=compute_importance(predictions[main], importance, metric=metric)
        if importance
        else (),
        players=_read_players(folder, main, explained[main]["modalities"], totals[main]),
        totals=totals,
        samples={system: _read_sample(folder, system, totals[system]) for system in explained},
    )
    if nulls:
        ledgers[main + PERMUTED] = {k: summary["ledger"] for k, summary in nulls.items()}
    tables = {
        "explain/shares.csv": _format(ShareRecord, evidence.shares),
        "explain/shapley.csv": _format(GameRecord, evidence.games),
        "explain/importance.csv": _format(PermutationRecord, evidence.importance),
        "explain/players.csv": _format(PlayerRecord, evidence.players),
        "explain/features.csv": _format_features(folder, explained, manifest, totals),
        "explain/dimensions.csv": _format_dimensions(folder, explained, manifest, totals),
    }
    return evidence, ledgers, tables


def _read_summary(folder: Path, system: str, folds: Sequence[Fold]) -> dict[str, Any] | None:
    where = contributions_folder(folder, system)
    if not where.exists():
        return None
    check_sums(where)
    summary: dict[str, Any] = json.loads((where / SUMMARY).read_text(encoding="utf-8"))
    return summary if summary["models"] == model_sums(folder, system, folds) else None


def _read_nulls(folder: Path, system: str, folds: Sequence[Fold]) -> dict[int, dict[str, Any]]:
    """Read the summaries of the permuted folds; none unless all are there and current."""
    nulls: dict[int, dict[str, Any]] = {}
    for fold in folds:
        where = unit_folder(folder, system + PERMUTED, fold.number)
        if not where.exists():
            return {}
        check_sums(where)
        summary = json.loads((where / SUMMARY).read_text(encoding="utf-8"))
        if summary["models"] != model_sums(folder, system, [fold]):
            return {}
        nulls[fold.number] = summary
    return nulls


def _collect_nulls(
    folder: Path,
    system: str,
    manifest: Manifest,
    folds: Sequence[Fold],
    nulls: dict[int, dict[str, Any]],
) -> tuple[list[Totals], dict[str, NDArray[np.float64]]]:
    """Join the folds' permuted labels, and their shuffled modalities."""
    if not nulls:
        return [], {}
    tested = tested_rows(folds)
    unit = {fold.number: unit_folder(folder, system + PERMUTED, fold.number) for fold in folds}
    contributions = contributions_folder(folder, system)
    explained = np.load(contributions / "trained.npy", allow_pickle=False).any(axis=1)
    places = {}
    for fold in folds:
        here = np.searchsorted(tested, fold.test)
        places[fold.number] = here[explained[here]]
    joined = []
    for repeat in range(min(len(summary["parts"]) for summary in nulls.values())):
        parts = [
            read_totals(unit[number], f"permuted_{repeat}_", summary["parts"][repeat])
            for number, summary in nulls.items()
        ]
        joined.append(join_totals(parts, [places[number] for number in nulls], len(tested)))
    shuffled: dict[str, NDArray[np.float64]] = {}
    modalities = next(iter(nulls.values()))["modalities"]
    for modality in modalities if len(modalities) > 1 else ():
        by_fold = {
            number: np.load(unit[number] / f"shuffled_{modality}.npy", allow_pickle=False)
            for number in nulls
        }
        n_repeats = min(len(one) for one in by_fold.values())
        whole = np.zeros((n_repeats, len(tested), len(manifest.classes)))
        for fold in folds:
            # Rows without any modality keep what the system gave them.
            here = np.searchsorted(tested, fold.test)
            whole[:, here] = class_priors(manifest.labels[fold.train], len(manifest.classes))
            whole[:, places[fold.number]] = by_fold[fold.number][:n_repeats]
        shuffled[modality] = whole
    return joined, shuffled


def _read_players(
    folder: Path, system: str, modalities: Sequence[str], totals: Totals
) -> list[PlayerRecord]:
    where = contributions_folder(folder, system)
    if not (where / "player_values.npy").exists():
        return []
    return compare_players(
        system,
        modalities,
        totals,
        np.load(where / "player_values.npy", allow_pickle=False),
        np.load(where / "player_interactions.npy", allow_pickle=False),
    )


def _read_sample(folder: Path, system: str, totals: Totals) -> Sample:
    where = contributions_folder(folder, system)
    names = json.loads((where / "shown_names.json").read_text(encoding="utf-8"))
    return Sample(
        tuple(names),
        np.load(where / "shown_contributions.npy", allow_pickle=False),
        np.load(where / "shown_values.npy", allow_pickle=False),
        totals.base,
    )


def _format(kind: type[Any], records: Iterable[Any]) -> str:
    return format_csv([field.name for field in fields(kind)], map(astuple, records))


def _format_features(
    folder: Path,
    explained: Mapping[str, dict[str, Any]],
    manifest: Manifest,
    totals: Mapping[str, Totals],
) -> str:
    """List features by the mean magnitude of their centred contributions, largest first."""
    rows: list[tuple[object, ...]] = []
    for system, summary in explained.items():
        means = _read_means(folder, system, "of_feature", totals[system])
        names = parse_names(summary["features"])
        for place in np.argsort(-means.sum(axis=1), kind="stable").tolist():
            name = names[place]
            rows.append(
                (
                    system,
                    str(name),
                    name.modality,
                    name.statistic,
                    name.dimension,
                    *[float(means[place].mean()), *means[place].tolist()],
                )
            )
    head = ["system", "feature", "modality", "statistic", "dimension", "mean_abs"]
    return format_csv([*head, *(f"mean_abs_{name}" for name in manifest.classes)], rows)


def _format_dimensions(
    folder: Path,
    explained: Mapping[str, dict[str, Any]],
    manifest: Manifest,
    totals: Mapping[str, Totals],
) -> str:
    """List dimensions by the mean magnitude of what their statistics contribute together."""
    rows: list[tuple[object, ...]] = []
    for system, summary in explained.items():
        means = _read_means(folder, system, "of_dimension", totals[system])
        for place in np.argsort(-means.sum(axis=1), kind="stable").tolist():
            modality, dimension = summary["dimensions"][place]
            each = means[place]
            rows.append((system, modality, dimension, float(each.mean()), *each.tolist()))
    head = ["system", "modality", "dimension", "mean_abs"]
    return format_csv([*head, *(f"mean_abs_{name}" for name in manifest.classes)], rows)


def _read_means(folder: Path, system: str, name: str, totals: Totals) -> NDArray[np.float64]:
    sums = np.load(contributions_folder(folder, system) / f"{name}.npy", allow_pickle=False)
    n = max(int(totals.trained.any(axis=1).sum()), 1)
    return np.asarray(sums.reshape(-1, totals.base.shape[1]) / n)
