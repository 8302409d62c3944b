"""Values of modalities: Shapley values of games over them, and permutation importance.

The characteristic function v gives every set of players its value. Sets are numbers: set s
holds player m where bit m of s is 1, so the empty set is 0 and the set of all is 2^M - 1.
Arrays of v may have further axes (classes, speakers left out), and all results keep them.

Permutation importance shuffles all columns of a modality together, so that their joint
information is lost at once, and within the held-out speaker: it is blind to features that are
constant within a speaker.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import factorial
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from toolkit.explain.contributions import Explainer, parse_names
from toolkit.fusion.inputs import training_priors
from toolkit.fusion.late import majority_vote, soft_vote
from toolkit.models import FittedBooster
from toolkit.models.checks import check_matrix
from toolkit.systems import MAJORITY
from toolkit.validation import Predictions
from toolkit.validation.comparison import better_baseline
from toolkit.validation.folds import derive_seed
from toolkit.validation.metrics import CLASS_METRICS, METRICS, Floats, GroupedRows, Metric
from toolkit.validation.scores import group_tallies, jackknife_interval, pooled_and_left_out

MAX_PLAYERS: Final = 5
"""Most modalities of a game: 32 sets, all of them exactly."""


@dataclass(frozen=True, slots=True)
class GameRecord:
    """One number of a game over modalities.

    - game: Name of the game, for example ``"late-soft"`` or ``"refit"``.
    - group: A class, or empty for the metric over all classes.
    - kind: ``"worth"`` (v of a set); of a player ``"value"`` (its Shapley value), ``"alone"``
      (v of the player minus v of the empty set) or ``"last"`` (v of all minus v of all
      others); of a pair ``"interaction"`` or ``"difference"`` (value of the first minus the
      second).
    - players: Modalities joined by ``"+"``; empty for the empty set.
    - value: In units of the metric.
    - low, high: 95 % jackknife interval over speakers, where there are five or more.
    - seed_sd: Standard deviation (ddof 1) of the number over other seeds; None without them.
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


def _shapley_values(v: ArrayLike) -> NDArray[np.float64]:
    """Compute the Shapley value of every player: (n_players, ...) of v (2 ** n_players, ...).

    ``sum over S without m of |S|! (M - |S| - 1)! / M! [v(S + m) - v(S)]``. Source: Shapley,
    L. S. (1953). A value for n-person games. Contributions to the Theory of Games 2.
    """
    game = np.asarray(v, dtype=np.float64)
    n = len(game).bit_length() - 1
    values = np.zeros((n, *game.shape[1:]))
    for player in range(n):
        for subset in range(len(game)):
            if not subset >> player & 1:
                size = subset.bit_count()
                weight = factorial(size) * factorial(n - size - 1) / factorial(n)
                values[player] += weight * (game[subset | 1 << player] - game[subset])
    return values


def _interaction_index(v: ArrayLike) -> NDArray[np.float64]:
    """Compute the interaction of every pair: (n_players, n_players, ...), 0 on the diagonal.

    ``sum over S without a, b of |S|! (M - |S| - 2)! / (M - 1)! [v(S + ab) - v(S + a) -
    v(S + b) + v(S)]``, of v (2 ** n_players, ...). Below 0 they gain less together.
    Source: Grabisch, M. and Roubens, M. (1999). An axiomatic approach to the concept of
    interaction among players in cooperative games. Int. J. Game Theory 28, equation 6.
    """
    game = np.asarray(v, dtype=np.float64)
    n = len(game).bit_length() - 1
    index = np.zeros((n, n, *game.shape[1:]))
    for a, b in combinations(range(n), 2):
        both = 1 << a | 1 << b
        for subset in range(len(game)):
            if not subset & both:
                size = subset.bit_count()
                weight = factorial(size) * factorial(n - size - 2) / factorial(n - 1)
                gain = game[subset | both] - game[subset | 1 << a] - game[subset | 1 << b]
                index[a, b] += weight * (gain + game[subset])
        index[b, a] = index[a, b]
    return index


def play_game(
    game: str,
    modalities: Sequence[str],
    systems: Mapping[frozenset[str], Predictions],
    *,
    metric: str = "f1_micro",
) -> list[GameRecord]:
    """Compute the game in which v of a set of modalities is the metric of its system.

    Parameters
    ----------
    game : str
        Name of the game.
    modalities : sequence of str
        The players: two to five.
    systems : mapping of frozenset of str to Predictions
        Every set of modalities to its predictions, all over the same utterances and folds;
        the empty set to those of the better baseline.
    metric : str, default="f1_micro"
        The metric over all classes; by class v is the class's F1.

    Returns
    -------
    list of GameRecord
        For the metric and then for every class: v of every set; the Shapley value of every
        player, its gain alone and added last; the interactions and differences of all pairs.
        Each has its jackknife interval over speakers.

    Raises
    ------
    ValueError
        If a set is missing, the systems are not aligned, or there are too many modalities.
    """
    players = list(modalities)
    # A game of one player has nothing to share; the number of sets doubles with each player.
    if not 2 <= len(players) <= MAX_PLAYERS:
        raise ValueError(
            f"A game needs two to {MAX_PLAYERS} modalities, got {len(players)}: {players}."
        )
    sets = [
        [player for bit, player in enumerate(players) if number >> bit & 1]
        for number in range(2 ** len(players))
    ]
    if absent := [subset for subset in sets if frozenset(subset) not in systems]:
        raise ValueError(
            f"The game {game!r} lacks the system of {absent[0] or ['no modality']} and "
            f"{len(absent) - 1} more sets; expected one for every set of {players}."
        )
    tables = [systems[frozenset(subset)] for subset in sets]
    for table in tables[1:]:
        tables[0].check_aligned(table)
    sizes = np.unique(tables[0].speakers, return_counts=True)[1]
    groups = [(metric, "", *_score_sets(tables, METRICS[metric], METRICS[metric].value))]
    by_class, left_out = _score_sets(tables, METRICS["f1_micro"], CLASS_METRICS["f1"])
    for code, name in enumerate(tables[0].classes):
        groups.append(("f1", name, by_class[:, code], left_out[:, :, code]))
    labels = [
        *(("worth", "+".join(subset)) for subset in sets),
        *((kind, player) for kind in ("value", "alone", "last") for player in players),
        *(("interaction", "+".join(pair)) for pair in combinations(players, 2)),
        *(("difference", "+".join(pair)) for pair in combinations(players, 2)),
    ]
    records: list[GameRecord] = []
    for measured, group, v, without in groups:
        numbers = zip(labels, _stack_numbers(v), _stack_numbers(without), strict=True)
        for (kind, members), number, estimates in numbers:
            value = float(number)
            ends = jackknife_interval(value, estimates, sizes)
            records.append(
                GameRecord(game, measured, group, kind, members, value, *ends, len(sizes))
            )
    return records


def _stack_numbers(v: NDArray[np.float64]) -> NDArray[np.float64]:
    """Stack the numbers of a game in the order of its records: (n_numbers, ...)."""
    index, values = _interaction_index(v), _shapley_values(v)
    first, second = np.triu_indices(len(index), k=1)
    bits = 1 << np.arange(len(index))
    alone, last = v[bits] - v[0], v[-1] - v[len(v) - 1 - bits]
    pairs = (index[first, second], values[first] - values[second])
    return np.concatenate([v, values, alone, last, *pairs])


def _score_sets(
    tables: list[Predictions], metric: Metric, value: Callable[[Floats], Floats]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Score every set: (n_sets, ...), and without each speaker (n_sets, n_speakers, ...)."""
    tallies = [group_tallies(table, metric, table.speakers)[1] for table in tables]
    pooled, left_out = zip(*(pooled_and_left_out(value, t) for t in tallies), strict=True)
    return np.array(pooled), np.array(left_out)


RULES: Final = {"soft": soft_vote, "vote": majority_vote}
"""Late fusions that learn nothing, so that a set of modalities costs no fit."""


def _late_systems(
    singles: Sequence[Predictions],
    baseline: Predictions,
    priors: Mapping[int, NDArray[np.float64]],
    *,
    rule: str = "soft",
) -> dict[frozenset[str], Predictions]:
    """Fuse every set of modalities late; the baseline predicts the empty set.

    A single modality stays as it is. An unknown rule raises ValueError.
    """
    if rule not in RULES:
        raise ValueError(f"Unknown rule {rule!r}; choose among {', '.join(RULES)}.")
    systems: dict[frozenset[str], Predictions] = {frozenset(): baseline}
    for size in range(1, len(singles) + 1):
        for subset in combinations(singles, size):
            members = frozenset(single.system for single in subset)
            systems[members] = subset[0] if size == 1 else RULES[rule](subset, priors)
    return systems


def compute_modality_shapley(
    singles: Sequence[Predictions],
    majority: Predictions,
    *,
    rule: str = "soft",
    metric: str = "f1_micro",
) -> list[GameRecord]:
    """Compute the Shapley value of each modality in late fusion.

    Parameters
    ----------
    singles : sequence of Predictions
        One per modality, two to five.
    majority : Predictions
        From :func:`toolkit.validation.majority_predictions` over the same folds; the empty
        set predicts what it predicts, or the no-information rate where that is better.
    rule : {"soft", "vote"}, default="soft"
        Late fusion of two modalities and more.
    metric : str, default="f1_micro"
        Metric that gives a set of modalities its value.

    Returns
    -------
    list of GameRecord
        As of :func:`play_game`. The Shapley values sum to the gain of all modalities together
        over the better baseline.

    Raises
    ------
    ValueError
        If there are too few or too many modalities, or the predictions are not aligned.

    Examples
    --------
    >>> import numpy as np
    >>> from toolkit.validation.predictions import Predictions
    >>> ids, zeros = np.array(list("abcd")), np.zeros(4, dtype=np.int64)
    >>> def predict(name, *sure):
    ...     proba = np.column_stack([1 - np.array(sure), sure])
    ...     truth = np.array([0, 0, 1, 1])
    ...     return Predictions(name, ("no", "yes"), ids, ids, None, zeros, zeros == 0, truth,
    ...                        proba)
    >>> voice = predict("voice", 0.1, 0.2, 0.9, 0.8)
    >>> face = predict("face", 0.3, 0.6, 0.6, 0.4)
    >>> records = compute_modality_shapley([voice, face], predict("majority", *[0.5] * 4))
    >>> [(r.players, r.value) for r in records if (r.kind, r.group) == ("value", "")]
    [('voice', 0.5), ('face', 0.0)]
    """
    baseline = better_baseline({MAJORITY: majority}, metric)
    systems = _late_systems(singles, baseline, training_priors(majority), rule=rule)
    names = [single.system for single in singles]
    return play_game(f"late-{rule}", names, systems, metric=metric)


@dataclass(frozen=True, slots=True, eq=False)
class _ModalityGame:
    """Shapley values of modalities inside the models, per row and class: (n, c, n_modalities).

    With the expected margin they add up to the margin. Interactions have one axis more.
    """

    modalities: tuple[str, ...]
    values: NDArray[np.float64]
    interactions: NDArray[np.float64]


def explain_modalities(explainer: Explainer, X: ArrayLike) -> _ModalityGame | None:
    """Compute Shapley values and interactions of whole modalities inside a model.

    In the trees a modality's features are known together or not at all. The linear part has
    the same values as from its columns one by one, and no interactions. `X` (n_rows,
    n_features) has the order of training, NaN where missing. None where the contributions are
    the booster's own, whose players are single features; more than five modalities raise
    ValueError.
    """
    if explainer.forest is None:
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
    layout = explainer.forest.lay_out(players)
    trained = list(booster.classes)
    values = np.zeros((len(matrix), booster.n_classes, n))
    for block in layout.shap_blocks(matrix):
        values[block.rows, trained] = block.by_row
    interactions = np.zeros((len(matrix), booster.n_classes, n, n))
    v = layout.coalition_margins(matrix).transpose(2, 0, 1)
    interactions[:, trained] = _interaction_index(v).transpose(2, 3, 0, 1)
    if booster.linear is not None:
        # A sum of functions of single columns: modalities do not interact in it.
        a, b = booster.weights
        own = booster.linear.sum_by(matrix, np.eye(n)[players])
        values, interactions = b * values, b * interactions
        values[:, trained] += a * own
    return _ModalityGame(modalities, values, interactions)


@dataclass(frozen=True, slots=True)
class PermutationRecord:
    """Loss of a system's metric without the information of a modality.

    - class_name: A class, or empty for all.
    - modality: The shuffled modality.
    - value: Loss of the metric, mean over `n_repeats` shuffles; below 0 it improves.
    - low, high: Ends of its 95 % jackknife interval over speakers.
    - deviation: Standard deviation over the repeats (ddof 1).
    """

    system: str
    metric: str
    class_name: str
    modality: str
    value: float
    low: float | None
    high: float | None
    deviation: float
    n_repeats: int


def permute_modality(
    booster: FittedBooster,
    X: NDArray[np.float32],
    speakers: NDArray[np.str_],
    modality: str,
    *,
    seed: int,
    n_repeats: int = 20,
) -> NDArray[np.float64]:
    """Predict rows of held-out speakers with one modality shuffled within each speaker.

    Its columns move together, among the rows that have any of them. Gives probabilities, shape
    (n_repeats, n_rows, n_classes). `X` (n_rows, n_features) has the order of training, NaN
    where missing; `speakers` are (n_rows,).
    """
    columns = np.flatnonzero([name.modality == modality for name in parse_names(booster.names)])
    proba = np.empty((n_repeats, len(X), booster.n_classes))
    if len(columns) == 0:  # screened out, so a shuffle changes nothing
        proba[:] = booster.predict_proba(X)
        return proba
    # Absence stays where it is: only values of rows with the modality are exchanged.
    present = ~np.isnan(X[:, columns]).all(axis=1)
    shuffled = X.copy()
    for repeat in range(n_repeats):
        rng = np.random.default_rng(derive_seed(seed, "permutation", modality, repeat))
        source = np.arange(len(X))
        for speaker in np.unique(speakers):
            rows = np.flatnonzero((speakers == speaker) & present)
            source[rows] = rng.permutation(rows)
        shuffled[:, columns] = X[source][:, columns]
        proba[repeat] = booster.predict_proba(shuffled)
    return proba


def compute_importance(
    predictions: Predictions,
    permuted: Mapping[str, NDArray[np.float64]],
    *,
    metric: str = "f1_micro",
) -> list[PermutationRecord]:
    """Compare shuffled predictions with those of a system.

    The system predicts the most probable class. Gives a record over all classes and then one of
    every class, by its F1, modality by modality.
    `permuted` gives probabilities (n_repeats, n, n_classes), row by row with the predictions.
    """
    system, chosen = predictions.system, METRICS[metric]
    speakers, numbers = np.unique(predictions.speakers, return_inverse=True)
    measures = ((chosen, chosen.value), (METRICS["f1_micro"], CLASS_METRICS["f1"]))
    gains = np.ones((1 + len(predictions.classes), 1))
    gains[0] = 1 if chosen.direction == "maximize" else -1

    def score(proba: NDArray[np.float64]) -> NDArray[np.float64]:
        """Score all classes and each (rows), of all speakers and without each (columns)."""
        y_pred = proba.argmax(axis=1)
        rows = GroupedRows(predictions.labels, y_pred, proba, numbers, len(speakers))
        scores = []
        for tallied, value in measures:
            pooled, left_out = pooled_and_left_out(value, tallied.tally(rows))
            both = np.concatenate([pooled[None], left_out])
            scores.append(both.reshape(len(both), -1).T)
        return np.concatenate(scores)

    before = score(predictions.proba)
    records: list[PermutationRecord] = []
    for modality, probas in permuted.items():
        drops = gains * (before - np.array([score(one) for one in probas]))
        for row, name in enumerate(("", *predictions.classes)):
            mean = drops[:, row].mean(axis=0)
            value = float(mean[0])
            ends = jackknife_interval(value, mean[1:], np.bincount(numbers))
            spread = float(drops[:, row, 0].std(ddof=1)) if len(drops) > 1 else 0.0
            found = (name, modality, value, *ends, spread, len(drops))
            records.append(PermutationRecord(system, "f1" if row else metric, *found))
    return records
