"""Games over modalities: Shapley values, interactions, and their intervals over speakers.

A game says for every set of players what it is worth. Here sets are numbers: set s holds
player m where bit m of s is 1, so the empty set is 0 and the set of all is 2^M - 1. Values may
carry further axes (classes, speakers left out), and everything is taken along them at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from math import factorial
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np

from toolkit.explain.contributions import parse_names
from toolkit.explain.trees import lane_blocks, make_walk, walk_blocks
from toolkit.fusion.inputs import training_priors
from toolkit.fusion.late import majority_vote, soft_vote
from toolkit.models.checks import check_matrix
from toolkit.validation.metrics import CLASS_METRICS, METRICS
from toolkit.validation.scores import group_tallies, jackknife_interval, pooled_and_left_out

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from toolkit.explain.contributions import Explainer
    from toolkit.explain.trees import Forest, Walk
    from toolkit.validation import Predictions

MAX_PLAYERS: Final = 5
"""Most modalities of a game: 32 sets, all of them exactly."""


@dataclass(frozen=True, slots=True)
class GameRecord:
    """One number of a game over modalities.

    Parameters
    ----------
    game : str
        How the sets were played, for example ``"late-soft"`` or ``"refit"``.
    metric : str
        What a set is worth.
    group : str
        A class, or empty for the metric over all classes.
    kind : str
        ``"worth"`` of a set, ``"value"`` of a player (its Shapley value), or
        ``"interaction"`` of a pair.
    players : str
        Modalities joined by ``"+"``; empty for the empty set.
    value : float
        The number, in units of the metric.
    low, high : float or None
        Ends of its 95 % jackknife interval over speakers, where there are five or more.
    n_speakers : int
        Number of speakers behind the interval.
    seed_sd : float or None, default=None
        Standard deviation (ddof 1) of the number over other seeds; None where it was not
        played under any.
    """

    game: str
    metric: str
    group: str
    kind: str
    players: str
    value: float
    low: float | None
    high: float | None
    n_speakers: int
    seed_sd: float | None = None


def shapley_values(worth: ArrayLike) -> NDArray[np.float64]:
    """Share the worth of the set of all players out among them.

    Parameters
    ----------
    worth : array-like of float, shape (2 ** n_players, ...)
        What every set is worth.

    Returns
    -------
    ndarray of float64, shape (n_players, ...)
        ``sum over S without m of |S|! (M - |S| - 1)! / M! [v(S + m) - v(S)]``. They sum to
        ``v(all) - v(empty)``.

    References
    ----------
    Shapley, L. S. (1953). A value for n-person games. Contributions to the Theory of Games 2.

    Examples
    --------
    Two modalities that are worth something only together share it equally:

    >>> shapley_values([0, 0, 0, 1]).tolist()
    [0.5, 0.5]
    """
    game, n = _check_game(worth)
    values = np.zeros((n, *game.shape[1:]))
    for player in range(n):
        for some in range(len(game)):
            if not some >> player & 1:
                size = some.bit_count()
                weight = factorial(size) * factorial(n - size - 1) / factorial(n)
                values[player] += weight * (game[some | 1 << player] - game[some])
    return values


def interaction_index(worth: ArrayLike) -> NDArray[np.float64]:
    """Say of every pair of players what they are worth beyond each alone.

    Parameters
    ----------
    worth : array-like of float, shape (2 ** n_players, ...)
        What every set is worth.

    Returns
    -------
    ndarray of float64, shape (n_players, n_players, ...)
        ``sum over S without a, b of |S|! (M - |S| - 2)! / (M - 1)! [v(S + ab) - v(S + a) -
        v(S + b) + v(S)]``; symmetric, 0 on the diagonal. Below 0 the two tell the same.

    References
    ----------
    Grabisch, M. and Roubens, M. (1999). An axiomatic approach to the concept of interaction
    among players in cooperative games. International Journal of Game Theory 28, equation 6.

    Examples
    --------
    >>> [interaction_index(worth)[0, 1].item() for worth in ([0, 0, 0, 1], [0, 1, 1, 1])]
    [1.0, -1.0]
    """
    game, n = _check_game(worth)
    index = np.zeros((n, n, *game.shape[1:]))
    for a, b in combinations(range(n), 2):
        both = 1 << a | 1 << b
        for some in range(len(game)):
            if not some & both:
                size = some.bit_count()
                weight = factorial(size) * factorial(n - size - 2) / factorial(n - 1)
                gain = (
                    game[some | both] - game[some | 1 << a] - game[some | 1 << b] + game[some]
                )
                index[a, b] += weight * gain
        index[b, a] = index[a, b]
    return index


def play_game(
    game: str,
    modalities: Sequence[str],
    systems: Mapping[frozenset[str], Predictions],
    *,
    metric: str = "f1_micro",
) -> list[GameRecord]:
    """Play the game in which a set of modalities is worth the metric of its system.

    Parameters
    ----------
    game : str
        How the sets were played.
    modalities : sequence of str
        The players: two to five.
    systems : mapping of frozenset of str to Predictions
        Every set of modalities to its predictions, all over the same utterances and folds;
        the empty set to those of ``majority``.
    metric : str, default="f1_micro"
        What the sets are worth, over all classes; by class it is the class's F1.

    Returns
    -------
    list of GameRecord
        For the metric and then for every class: the worth of every set, the Shapley values,
        the interactions of all pairs, each with its jackknife interval over speakers.

    Raises
    ------
    ValueError
        If a set is missing, the systems are not aligned, or there are too many modalities.
    """
    players = list(modalities)
    if not 2 <= len(players) <= MAX_PLAYERS:
        raise ValueError(
            f"A game needs two to {MAX_PLAYERS} modalities, got {len(players)}: {players}."
        )
    sets = [_members(players, number) for number in range(2 ** len(players))]
    if absent := [some for some in sets if frozenset(some) not in systems]:
        raise ValueError(
            f"The game {game!r} lacks the system of {absent[0] or ['no modality']} and "
            f"{len(absent) - 1} more sets; expected one for every set of {players}."
        )
    tables = [systems[frozenset(some)] for some in sets]
    for table in tables[1:]:
        tables[0].check_aligned(table)
    chosen = METRICS[metric]
    names, _ = group_tallies(tables[0], chosen, tables[0].speakers)
    pooled, left_out = _score_sets(tables, metric)
    groups = [(metric, "", pooled, left_out)]
    of_class, class_left_out = _score_classes(tables)
    for code, name in enumerate(tables[0].classes):
        groups.append(("f1", name, of_class[:, code], class_left_out[:, :, code]))
    records: list[GameRecord] = []
    for measured, group, worth, without in groups:
        labels, numbers, others = _numbers(players, sets, worth, without)
        for (kind, who), value, spread in zip(labels, numbers, others, strict=True):
            low, high = jackknife_interval(float(value), spread)
            records.append(
                GameRecord(
                    game, measured, group, kind, who, float(value), low, high, len(names)
                )
            )
    return records


def add_seed_noise(
    records: Sequence[GameRecord], again: Sequence[Sequence[GameRecord]]
) -> list[GameRecord]:
    """Say of every number of a game how far it moves with the seed.

    Parameters
    ----------
    records : sequence of GameRecord
        From :func:`play_game`.
    again : sequence of sequence of GameRecord
        The same games by systems of other seeds, one sequence a seed.

    Returns
    -------
    list of GameRecord
        In the same order; a number that is not there under every seed stays as it is.
    """
    found: dict[tuple[str, ...], list[float]] = {}
    for record in (record for one in again for record in one):
        found.setdefault(_key(record), []).append(record.value)
    return [
        replace(record, seed_sd=float(np.std(found[_key(record)], ddof=1)))
        if 1 < len(again) == len(found.get(_key(record), ()))
        else record
        for record in records
    ]


def _key(record: GameRecord) -> tuple[str, ...]:
    return (record.game, record.metric, record.group, record.kind, record.players)


def _numbers(
    players: list[str],
    sets: list[list[str]],
    worth: NDArray[np.float64],
    without: NDArray[np.float64],
) -> tuple[list[tuple[str, str]], NDArray[np.float64], NDArray[np.float64]]:
    """Lay out every number of a game, as it is and without each speaker."""
    pairs = list(combinations(range(len(players)), 2))
    labels = [("worth", "+".join(some)) for some in sets]
    labels += [("value", player) for player in players]
    labels += [("interaction", f"{players[a]}+{players[b]}") for a, b in pairs]

    def stack(game: NDArray[np.float64]) -> NDArray[np.float64]:
        index = interaction_index(game)
        return np.concatenate(
            [game, shapley_values(game), np.array([index[pair] for pair in pairs])]
        )

    return labels, stack(worth), stack(without)


def _score_sets(
    tables: list[Predictions], metric: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Score every set: (n_sets,), and without each speaker (n_sets, n_speakers)."""
    chosen = METRICS[metric]
    pairs = [
        pooled_and_left_out(chosen.value, group_tallies(table, chosen, table.speakers)[1])
        for table in tables
    ]
    return np.array([float(value) for value, _ in pairs]), np.array([left for _, left in pairs])


def _score_classes(
    tables: list[Predictions],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Score every class of every set: (n_sets, n_classes), (n_sets, n_speakers, n_classes)."""
    counts = METRICS["f1_micro"]
    pairs = [
        pooled_and_left_out(
            CLASS_METRICS["f1"], group_tallies(table, counts, table.speakers)[1]
        )
        for table in tables
    ]
    return np.array([value for value, _ in pairs]), np.array([left for _, left in pairs])


def _members(players: list[str], number: int) -> list[str]:
    return [player for bit, player in enumerate(players) if number >> bit & 1]


def _check_game(worth: ArrayLike) -> tuple[NDArray[np.float64], int]:
    game = np.asarray(worth, dtype=np.float64)
    n = game.shape[0].bit_length() - 1 if game.ndim else 0
    if n < 1 or len(game) != 2**n:
        raise ValueError(
            f"A game has shape {game.shape}; expected (2 ** n_players, ...): a number for "
            "every set of players."
        )
    return game, n


RULES: Final = MappingProxyType({"soft": soft_vote, "vote": majority_vote})
"""Late fusions that learn nothing, so that a set of modalities costs no fit."""


def late_systems(
    singles: Sequence[Predictions],
    majority: Predictions,
    shares: Mapping[int, NDArray[np.float64]],
    *,
    rule: str = "soft",
) -> dict[frozenset[str], Predictions]:
    """Fuse every set of modalities late.

    Parameters
    ----------
    singles : sequence of Predictions
        One a modality.
    majority : Predictions
        What the empty set predicts.
    shares : mapping of int to ndarray of float64
        Number of every fold to the class shares of its training rows.
    rule : {"soft", "vote"}, default="soft"
        How two and more are fused; a single one stands for itself.

    Returns
    -------
    dict of frozenset of str to Predictions
        For :func:`toolkit.explain.play_game`.

    Raises
    ------
    ValueError
        If the rule is unknown.
    """
    if rule not in RULES:
        raise ValueError(f"Unknown rule {rule!r}; choose among {', '.join(RULES)}.")
    systems: dict[frozenset[str], Predictions] = {frozenset(): majority}
    for size in range(1, len(singles) + 1):
        for some in combinations(singles, size):
            who = frozenset(single.system for single in some)
            systems[who] = some[0] if size == 1 else RULES[rule](some, shares)
    return systems


def compute_modality_shapley(
    singles: Sequence[Predictions],
    majority: Predictions,
    *,
    rule: str = "soft",
    metric: str = "f1_micro",
) -> list[GameRecord]:
    """Say what each modality adds to late fusion, as Shapley values.

    Parameters
    ----------
    singles : sequence of Predictions
        One a modality, two to five.
    majority : Predictions
        From :func:`toolkit.validation.majority_predictions` over the same folds: what no
        modality at all is worth, and the class shares of every fold's training rows.
    rule : {"soft", "vote"}, default="soft"
        How two modalities and more are fused.
    metric : str, default="f1_micro"
        What a set of modalities is worth.

    Returns
    -------
    list of GameRecord
        Worth of every set, Shapley value of every modality and interaction of every pair, over
        all classes and by class, with jackknife intervals over speakers. The Shapley values
        sum to what all modalities together gain over ``majority``.

    Raises
    ------
    ValueError
        If there are too few or too many modalities, or the predictions are not aligned.

    Examples
    --------
    >>> import numpy as np
    >>> from toolkit.validation.predictions import Predictions
    >>> ids, zeros = np.array(list("abcd")), np.zeros(4, dtype=np.int64)
    >>> def say(name, *sure):
    ...     proba = np.column_stack([1 - np.array(sure), sure])
    ...     truth = np.array([0, 0, 1, 1])
    ...     return Predictions(name, ("no", "yes"), ids, ids, None, zeros, zeros == 0, truth,
    ...                        proba)
    >>> voice, face = say("voice", 0.1, 0.2, 0.9, 0.8), say("face", 0.3, 0.6, 0.6, 0.4)
    >>> records = compute_modality_shapley([voice, face], say("majority", *[0.5] * 4))
    >>> [(r.players, r.value) for r in records if (r.kind, r.group) == ("value", "")]
    [('voice', 0.5), ('face', 0.0)]
    """
    systems = late_systems(singles, majority, training_priors(majority), rule=rule)
    names = [single.system for single in singles]
    return play_game(f"late-{rule}", names, systems, metric=metric)


@dataclass(frozen=True, slots=True, eq=False)
class ModalityGame:
    """What each modality of a row is worth to the margins, by Shapley's rule.

    - modalities: The players, in the order of the model's features.
    - values: shape (n_rows, n_classes, n_modalities); Shapley value of each modality; with the
      expected margin they add up to the margin.
    - interactions: shape (n_rows, n_classes, n_modalities, n_modalities); Shapley interaction
      index of each pair, symmetric, 0 on the diagonal.
    """

    modalities: tuple[str, ...]
    values: NDArray[np.float64]
    interactions: NDArray[np.float64]


def explain_modalities(explainer: Explainer, X: ArrayLike) -> ModalityGame | None:
    """Share the margins out among whole modalities.

    Parameters
    ----------
    explainer : Explainer
        From :func:`make_explainer`.
    X : array-like, shape (n_rows, n_features)
        Features in the order of training; NaN where missing.

    Returns
    -------
    ModalityGame or None
        None where the booster itself has to explain: it knows no players but features.

    Raises
    ------
    ValueError
        If there are more than five modalities.
    """
    forest = explainer.forest
    if forest is None:
        return None
    booster = explainer.booster
    matrix = check_matrix(X, n_features=len(booster.names))
    names = parse_names(booster.names)
    modalities = tuple(dict.fromkeys(name.modality for name in names))
    n = len(modalities)
    if n > MAX_PLAYERS:
        raise ValueError(
            f"The model has {n} modalities; a game of at most {MAX_PLAYERS} is exact."
        )
    players = np.array([modalities.index(name.modality) for name in names], dtype=np.int64)
    walk = make_walk(forest, players)
    trained = list(booster.classes)
    values = np.zeros((len(matrix), booster.n_classes, n))
    for block in walk_blocks(forest, walk, matrix, n):
        n_here = block.rows.stop - block.rows.start
        values[block.rows, trained] = block.shares[:, :, :n_here].transpose(2, 0, 1)
    interactions = np.zeros((len(matrix), booster.n_classes, n, n))
    games = coalition_margins(forest, walk, matrix, n)
    interactions[:, trained] = interaction_index(games.transpose(2, 0, 1)).transpose(2, 3, 0, 1)
    return ModalityGame(modalities, values, interactions)


def coalition_margins(
    forest: Forest, walk: Walk, matrix: NDArray[np.float32], n_players: int
) -> NDArray[np.float64]:
    """Give the margins that are expected when only some players are known.

    Parameters
    ----------
    matrix : ndarray of float32, shape (n_rows, n_features)
        Checked features.

    Returns
    -------
    ndarray of float64, shape (n_rows, n_trained_classes, 2 ** n_players)
        Set s holds player m where bit m of s is 1. Without the margin before the first tree.
    """
    from toolkit.explain.treeshap import add_coalitions  # noqa: PLC0415  (the compiler)
    from toolkit.jit import LANES  # noqa: PLC0415

    n_sets = 2**n_players
    n_classes = len(forest.intercept)
    of_class = [np.flatnonzero(forest.classes == c) for c in range(n_classes)]
    depth = walk.depth + 1
    passes, on_path = np.zeros(depth * LANES), np.zeros(depth, dtype=np.int64)
    reached = np.zeros(depth * n_sets * LANES)
    margins = np.zeros((len(matrix), n_classes, n_sets))
    single = np.diff(walk.edges.starts) == 0
    for c, trees in enumerate(of_class):
        # A tree of a single leaf has no edge to be visited by.
        margins[:, c] = walk.expected[trees[single[trees]]].sum()
    for rows, values in lane_blocks(matrix, walk.columns, LANES):
        for c, trees in enumerate(of_class):
            out = np.zeros((n_sets, LANES))
            add_coalitions(
                walk.edges, trees, values, n_players, passes, reached, on_path, out.reshape(-1)
            )
            margins[rows, c] += out[:, : rows.stop - rows.start].T
    return margins
