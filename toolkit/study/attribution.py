"""Shares, games and importances of a study, derived from the explanations that it keeps."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from toolkit.explain import ShareRecord, Totals, compute_modality_shapley, play_game
from toolkit.explain.contributions import parse_names
from toolkit.explain.shapley import (
    MAX_PLAYERS,
    RULES,
    GameRecord,
    PermutationRecord,
    compute_importance,
)
from toolkit.explain.shares import (
    Attribution,
    LinearRecord,
    PlayerRecord,
    Sample,
    compare_players,
    compute_linear_shares,
    compute_shares,
)
from toolkit.files import AnyPath, format_csv, format_records, read_array, read_json
from toolkit.fusion.fuse import FusionResult
from toolkit.models import class_priors
from toolkit.study.folder import Study
from toolkit.systems import (
    EARLY,
    LOG_POOL,
    MAJORITY,
    early_name,
    list_subsets,
    seed_name,
    variant_name,
)
from toolkit.validation import Fold, Predictions
from toolkit.validation.comparison import better_baseline

Ledgers = dict[str, Mapping[int, list[dict[str, Any]]]]

#: Arrays of a system's sums of contributions, a file each.
TOTALS: Final = ("signed", "absolute", "base", "trained")
#: Further arrays where models have a linear part.
BLENDED: Final = ("linear", "trees", "weights")


def derive_attribution(
    study: Study, predictions: Mapping[str, Predictions], fused: FusionResult | None = None
) -> tuple[Attribution | None, Ledgers, dict[str, str]]:
    """Derive which modality, feature and dimension drives the systems of a study.

    Returns the attribution (None where nothing is explained), the ledgers of the fits behind
    it by system and fold, and the path inside the folder to the text of every file.
    """
    folder = study.folder
    singles = [name for name in study.manifest.available if name in predictions]
    numbers = [fold.number for fold in study.folds]
    # Explanations of models that have changed since are left out, not shown as current.
    summaries = {
        system: folder.read_explanation(folder.contributions(system), system, numbers)
        for system in [*singles, EARLY]
        if system in predictions
    }
    explained = {system: found for system, found in summaries.items() if found is not None}
    if not explained:
        return None, {}, {}
    main = EARLY if EARLY in explained else next(iter(explained))
    folders = {system: folder.contributions(system) for system in explained}
    nulls = _read_nulls(study, main)
    totals = {
        system: _read_totals(folders[system], "", summary["parts"])
        for system, summary in explained.items()
    }
    permuted, shuffled = _collect_nulls(study, main, nulls)
    shares: list[ShareRecord] = []
    for system, total in totals.items():
        shares += compute_shares(predictions[system], total, permuted if system == main else ())
    shares += _pool_shares(fused, totals)
    linear = [
        record
        for system, total in totals.items()
        for record in compute_linear_shares(predictions[system], total)
    ]
    modalities = tuple(explained[main]["modalities"])
    games: Sequence[GameRecord] = ()
    if study.config.shapley != "none":
        # Over the modalities of early fusion: one that was left out since is no player.
        players = [name for name in singles if main != EARLY or name in modalities]
        games = _play_games(study, predictions, players)
    metric = study.config.metric
    attribution = Attribution(
        system=main,
        modalities=modalities,
        shares=shares,
        games=games,
        importance=compute_importance(predictions[main], shuffled, metric=metric)
        if shuffled
        else (),
        players=_read_players(folders[main], main, modalities, totals[main]),
        totals=totals,
        samples={system: _read_sample(folders[system], totals[system]) for system in explained},
        linear=linear,
        n_permuted=len(permuted),
    )
    entries = {number: summary["ledger"] for number, summary in nulls.items()}
    ledgers: Ledgers = {variant_name(main, "permuted"): entries} if nulls else {}
    tables = {
        "explain/shares.csv": format_records(ShareRecord, attribution.shares),
        "explain/shapley.csv": format_records(GameRecord, attribution.games),
        "explain/importance.csv": format_records(PermutationRecord, attribution.importance),
        "explain/linear.csv": format_records(LinearRecord, linear),
        "explain/players.csv": format_records(PlayerRecord, attribution.players),
        "explain/features.csv": _format_means(study, explained, totals, "feature"),
        "explain/dimensions.csv": _format_means(study, explained, totals, "dimension"),
    }
    return attribution, ledgers, tables


def _pool_shares(fused: FusionResult | None, totals: Mapping[str, Totals]) -> list[ShareRecord]:
    """Compute the shares of the pool of margins; none where a member is not explained."""
    if fused is None or LOG_POOL not in fused.predictions:
        return []
    predictions = fused.predictions[LOG_POOL]
    by_fold = {
        number: dict(zip(learnt.members, learnt.pool_weights, strict=True))
        for number, learnt in fused.learnt.items()
    }
    systems = {member.partition(" (")[0] for member in next(iter(by_fold.values()))}
    if not systems <= totals.keys():
        return []
    weights = [by_fold[number] for number in predictions.folds.tolist()]
    return compute_shares(predictions, _pool_totals(totals, weights))


def _pool_totals(
    totals: Mapping[str, Totals], weights: Sequence[Mapping[str, float]]
) -> Totals:
    """Add up the contributions of the members of a pool of margins.

    - totals: Systems to contributions, row by row; of each member of the pool.
    - weights: Per row, members such as ``"early (linear)"`` to their weights.

    A modality that a row lacks contributes nothing. Magnitudes of single features are not
    known for a sum, so ``absolute`` is 0.
    """
    parts = tuple(dict.fromkeys(part for total in totals.values() for part in total.parts))
    first = next(iter(totals.values()))
    signed = np.zeros((*first.base.shape, len(parts)))
    base, trained = np.zeros_like(first.base), np.zeros_like(first.trained)
    for member in weights[0]:
        system, _, kind = member.removesuffix(")").partition(" (")
        total = totals[system]
        own = total.signed if total.weights is None else getattr(total, kind)
        columns = [parts.index(part) for part in total.parts]
        w = np.array([row[member] for row in weights])
        signed[:, :, columns] += w[:, None, None] * own
        trained |= total.trained
    return Totals(parts, signed, np.zeros_like(signed), base, trained, {}, {})


def _play_games(
    study: Study, predictions: Mapping[str, Predictions], players: Sequence[str]
) -> list[GameRecord]:
    """Play every game that the finished systems of a study allow, under every seed."""
    again = [_play(study, predictions, players)]
    systems = [early_name(subset, players) for subset in list_subsets(players)]
    for number in range(1, study.config.seeds):
        names = {system: seed_name(system, number) for system in systems}
        tables = {MAJORITY: predictions[MAJORITY]} | {
            system: replace(predictions[name], system=system)
            for system, name in names.items()
            if name in predictions
        }
        again.append(_play(study, tables, players))
    return _add_seed_noise(again[0], again)


def _add_seed_noise(
    records: Sequence[GameRecord], again: Sequence[Sequence[GameRecord]]
) -> list[GameRecord]:
    """Add to every number of a game its standard deviation over seeds.

    `again` holds the same games by systems of other seeds, one sequence per seed; a number that
    a seed lacks stays as it is.
    """
    identity = attrgetter("game", "metric", "group", "kind", "players")
    found: dict[tuple[str, ...], list[float]] = {}
    for record in chain.from_iterable(again):
        found.setdefault(identity(record), []).append(record.value)
    # A single other seed has no standard deviation.
    return [
        replace(record, seed_sd=float(np.std(found[identity(record)], ddof=1)))
        if 1 < len(again) == len(found.get(identity(record), ()))
        else record
        for record in records
    ]


def _play(
    study: Study, predictions: Mapping[str, Predictions], players: Sequence[str]
) -> list[GameRecord]:
    """Play the games over late fusion, and the one by refit where every set was run."""
    if not (2 <= len(players) <= MAX_PLAYERS and predictions.keys() >= set(players)):
        return []
    tables = [predictions[name] for name in players]
    majority, metric = predictions[MAJORITY], study.config.metric
    records = []
    for rule in RULES:
        records += compute_modality_shapley(tables, majority, rule=rule, metric=metric)
    names = {subset: early_name(subset, players) for subset in list_subsets(players)}
    if predictions.keys() >= set(names.values()):
        refit = {frozenset[str](): better_baseline(predictions, metric)}
        refit |= {frozenset(subset): predictions[name] for subset, name in names.items()}
        records += play_game("refit", players, refit, metric=metric)
    return records


def tested_rows(folds: Sequence[Fold]) -> NDArray[np.int64]:
    """List the rows that are tested, as predictions are ordered."""
    return np.sort(np.concatenate([fold.test for fold in folds]))


def _read_nulls(study: Study, system: str) -> dict[int, dict[str, Any]]:
    """Read the summaries of the permuted folds; none unless all are there and current."""
    nulls: dict[int, dict[str, Any]] = {}
    for number in (fold.number for fold in study.folds):
        path = study.folder.permuted(system, number)
        summary = study.folder.read_explanation(path, system, [number])
        # Nulls of some folds, or of earlier models, say nothing about the whole.
        if summary is None:
            return {}
        nulls[number] = summary
    return nulls


def _collect_nulls(
    study: Study, system: str, nulls: dict[int, dict[str, Any]]
) -> tuple[list[Totals], dict[str, NDArray[np.float64]]]:
    """Join the folds' permuted labels, and their shuffled modalities.

    Shuffled: probabilities of shape (n_repeats, n_tested, n_classes) by modality.
    """
    if not nulls:
        return [], {}
    labels, n_classes = study.manifest.labels, len(study.manifest.classes)
    tested = tested_rows(study.folds)
    contributions = study.folder.contributions(system)
    explained: NDArray[np.bool_] = np.any(read_array(contributions / "trained.npy"), axis=1)
    rows = [np.searchsorted(tested, fold.test) for fold in study.folds]
    present = [found[explained[found]] for found in rows]
    seen = next(iter(nulls.values()))["modalities"]
    modalities = seen if len(seen) > 1 else ()  # one alone is not shuffled
    n_repeats = min(len(summary["parts"]) for summary in nulls.values())
    totals, probas = [], []
    for number, summary in nulls.items():
        with study.folder.open_part(study.folder.permuted(system, number)) as unit:
            parts = enumerate(summary["parts"][:n_repeats])
            totals.append([_read_totals(unit, f"permuted_{k}_", part) for k, part in parts])
            probas.append({m: read_array(unit / f"shuffled_{m}.npy") for m in modalities})
    joined = [Totals.join(each, present, len(tested)) for each in zip(*totals, strict=True)]
    shuffled: dict[str, NDArray[np.float64]] = {}
    for modality in modalities:
        by_fold = [found[modality] for found in probas]
        n_repeats = min(map(len, by_fold))
        proba = np.zeros((n_repeats, len(tested), n_classes))
        for fold, at, own, values in zip(study.folds, rows, present, by_fold, strict=True):
            # Rows without any modality keep the class priors that the system gave them.
            proba[:, at] = class_priors(labels[fold.train], n_classes)
            proba[:, own] = values[:n_repeats]
        shuffled[modality] = proba
    return joined, shuffled


def _read_totals(folder: AnyPath, prefix: str, parts: Sequence[Sequence[str]]) -> Totals:
    """Read sums of contributions back, without those by feature and dimension."""
    blended = (folder / f"{prefix}weights.npy").exists()
    arrays = {
        name: read_array(folder / f"{prefix}{name}.npy")
        for name in (TOTALS + BLENDED if blended else TOTALS)
    }
    named = tuple((str(modality), str(statistic)) for modality, statistic in parts)
    return Totals(named, **arrays, of_feature={}, of_dimension={})


def _read_players(
    folder: Path, system: str, modalities: Sequence[str], totals: Totals
) -> list[PlayerRecord]:
    if not (folder / "player_values.npy").exists():
        return []
    values = read_array(folder / "player_values.npy")
    interactions = read_array(folder / "player_interactions.npy")
    return compare_players(system, modalities, totals, values, interactions)


def _read_sample(folder: Path, totals: Totals) -> Sample:
    names = read_json(folder / "shown_names.json")
    shown, values = (read_array(folder / f"shown_{n}.npy") for n in ("contributions", "values"))
    return Sample(tuple(names), shown, values, totals.base)


def _format_means(
    study: Study,
    explained: Mapping[str, dict[str, Any]],
    totals: Mapping[str, Totals],
    part: str,
) -> str:
    """List features or dimensions by the mean magnitude of their centred contributions.

    The magnitude of a dimension is that of its statistics' joint contribution. Largest first.
    """
    named = {m: each.get("dimensions") for m, each in study.data["modalities"].items()}
    rows: list[tuple[object, ...]] = []
    for system, summary in explained.items():
        sums = read_array(study.folder.contributions(system) / f"of_{part}.npy")
        n_explained = max(int(totals[system].trained.any(axis=1).sum()), 1)
        means = sums.reshape(-1, totals[system].base.shape[1]) / n_explained
        names = parse_names(summary["features"]) if part == "feature" else []
        for index in np.argsort(-means.sum(axis=1), kind="stable").tolist():
            if part == "feature":
                name = names[index]
                modality, dimension = name.modality, name.dimension
                cells = (str(name), modality, name.statistic, dimension)
            else:
                modality, dimension = cells = tuple(summary["dimensions"][index])
            label = named[modality][dimension] if named.get(modality) else ""
            numbers = (float(means[index].mean()), *means[index].tolist())
            rows.append((system, *cells, label, *numbers))
    kind = ["feature", "modality", "statistic"] if part == "feature" else ["modality"]
    classes = [f"mean_abs_{name}" for name in study.manifest.classes]
    return format_csv(["system", *kind, "dimension", "name", "mean_abs", *classes], rows)
