"""The section on the searches: choices, parameters, and optima at the edge of the space."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, Any, Final

from toolkit.models import GRIDS, make_grid, make_space, to_params
from toolkit.report.document import (
    NONE,
    Cell,
    Figure,
    Section,
    format_number,
    make_table,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from toolkit.models.spaces import Distribution, Space
    from toolkit.report.document import Table
    from toolkit.report.facts import StudyFacts
    from toolkit.validation import SearchResult

_CHOICES: Final = ("booster", "statistics", "screening", "imbalance")

#: A choice this near to an end of its range, as a share of the range, is at the edge.
_EDGE: Final = 0.02
#: Whole numbers of fewer steps than this lie at an end too often for it to mean something.
_FEWEST_STEPS: Final = 4


@dataclass(frozen=True, slots=True)
class _EdgeCount:
    """The number `n` of folds, of `n_folds`, whose choice lies at one end of a range."""

    system: str
    param: str
    end: str
    n: int
    n_folds: int


def search_section(facts: StudyFacts) -> Section | None:
    """Summarise the searches; None where nothing was searched."""
    if not facts.searches:
        return None
    gains = []
    for system, searches in facts.searches.items():
        curves = [best_so_far(facts, search) for search in searches]
        first = [c[0] for c in curves if c and c[0] is not None]
        last = [c[-1] for c in curves if c and c[-1] is not None]
        if first and last:
            gains.append(
                f"{system} from {format_number(sum(first) / len(first))} to "
                f"{format_number(sum(last) / len(last))}"
            )
    figure = Figure(
        "search",
        f"Best inner {facts.metric.title} so far over the trials: thin lines are outer "
        "folds, the thick one is their mean. Inner scores chose, so they are optimistic.",
        f"Best inner {facts.metric.title}, mean over folds, first to last trial: "
        f"{'; '.join(gains)}.",
    )
    return Section(
        "search",
        "What was chosen",
        (figure, _choices_table(facts), _params_table(facts)),
    )


def best_so_far(facts: StudyFacts, search: SearchResult) -> list[float | None]:
    """Compute the best score so far after each trial; None before the first score."""
    better = max if facts.metric.direction == "maximize" else min
    best: float | None = None
    curve = []
    for trial in search.trials:
        if trial["state"] == "complete" and trial["score"] is not None:
            best = trial["score"] if best is None else better(best, trial["score"])
        curve.append(best)
    return curve


def count_edges(facts: StudyFacts) -> list[_EdgeCount]:
    """Count choices at the edge of the search space.

    The ends are those of the search: the space's, for the rows and columns of each fold.
    A search of a single trial chose nothing and is left out.
    """
    counts: Counter[tuple[str, str, str]] = Counter()
    for system, searches in facts.searches.items():
        records = facts.params[system].values()
        for search, record in zip(searches, records, strict=True):
            if len(search.trials) > 1:
                space = _space(facts, search.params["booster"])
                hits = _edges(search, record["record"], space)
                counts.update((system, *hit) for hit in hits)
            if search.n_rounds >= facts.options["rounds"]:
                counts[system, "boosting rounds", "high"] += 1
    return [
        _EdgeCount(system, param, end, n, len(facts.searches[system]))
        for (system, param, end), n in counts.items()
    ]


def _space(facts: StudyFacts, booster: str) -> Space:
    """Make the space, or the grid, of a booster's parameters."""
    if facts.options["sampler"] != "grid":
        return make_space(booster, facts.options["space"].get(booster, {}))
    own = facts.options["grid"].get(booster)
    return make_grid(booster, own) if own else GRIDS[booster]


def _edges(
    search: SearchResult, record: Mapping[str, Any], space: Space
) -> list[tuple[str, str]]:
    n_rows = sum(record["before"].values())
    lows, highs = (
        to_params(
            search.params["booster"],
            {name: _ends(distribution)[end] for name, distribution in space.items()},
            n_rows=n_rows,
            n_features=record["n_features"],
        )
        for end in (0, 1)
    )
    hits = []
    for name, low in lows.items():
        high, chosen = highs[name], search.params.get(name)
        if isinstance(low, bool | str) or low == high or chosen is None:
            continue
        if isinstance(low, int) and isinstance(high, int) and high - low < _FEWEST_STEPS:
            continue
        place = _place(float(chosen), *sorted((float(low), float(high))))
        if place <= _EDGE or place >= 1 - _EDGE:
            hits.append((name, "low" if place <= _EDGE else "high"))
    return hits


def _ends(distribution: Distribution) -> tuple[Any, Any]:
    """Give both ends of a range, or one value twice where there is none."""
    if not hasattr(distribution, "choices"):
        return distribution.low, distribution.high
    choices = distribution.choices
    # One of two values is always chosen, so two are no range.
    if len(choices) < 3 or any(isinstance(value, bool | str) for value in choices):
        return choices[0], choices[0]
    return min(choices), max(choices)


def _place(value: float, low: float, high: float) -> float:
    """Say where in a range a value is, from 0 to 1; ranges of many sizes by their logarithm."""
    if low > 0 and high / low >= 4:
        low, high, value = log(low), log(high), log(value)
    return (value - low) / (high - low)


def _choices_table(facts: StudyFacts) -> Table:
    rows = []
    for system, searches in facts.searches.items():
        for (fold, record), search in zip(facts.params[system].items(), searches, strict=True):
            states = Counter(trial["state"] for trial in search.trials)
            rows.append(
                [
                    Cell(system),
                    Cell(fold),
                    *(Cell(str(record["params"][name])) for name in _CHOICES),
                    record["record"]["n_features"],
                    search.n_rounds,
                    search.score,
                    len(search.trials),
                    states["pruned"],
                    states["fail"],
                    Cell(search.stopped_by),
                ]
            )
    header = ["system", "fold", *_CHOICES, "features", "rounds"]
    header += [f"inner {facts.metric.title}", "trials", "raced out", "failed", "stopped by"]
    return make_table(
        "choices",
        "What each search chose, fold by fold.",
        header,
        rows,
        note=(
            "The inner score chose among the trials and is therefore optimistic. Every trial "
            "is in search.db and in units/."
        ),
    )


def _params_table(facts: StudyFacts) -> Table:
    edges = {(edge.system, edge.param, edge.end): edge for edge in count_edges(facts)}
    rows = []
    for system, searches in facts.searches.items():
        names = dict.fromkeys(name for search in searches for name in search.params)
        for name in names:
            if name in _CHOICES:
                continue
            values = [search.params[name] for search in searches if name in search.params]
            hits = [
                f"{edges[system, name, end].n} at the {end} end"
                for end in ("low", "high")
                if (system, name, end) in edges
            ]
            rows.append(
                [Cell(system), Cell(name), *_spread(values), Cell(", ".join(hits) or NONE)]
            )
    return make_table(
        "params",
        "Hyperparameters chosen, over the outer folds.",
        ["system", "hyperparameter", "least", "median", "most", "at the edge of its range"],
        rows,
        note=(
            "Names are the booster's own. Choices that are not numbers are counted instead. "
            f"The edge is the outermost {_EDGE:.0%} of a range.".replace("%", " %")
        ),
    )


def _spread(values: list[Any]) -> list[Cell]:
    if any(isinstance(value, bool | str) for value in values):
        counted = Counter(map(str, values)).most_common()
        words = ", ".join(f"{value} in {n}" for value, n in counted)
        return [Cell(NONE), Cell(words), Cell(NONE)]
    ordered = sorted(map(float, values))
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    return [Cell(f"{value:.3g}", value) for value in (ordered[0], middle, ordered[-1])]
