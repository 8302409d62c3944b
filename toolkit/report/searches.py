"""The sections on seeds and searches: choices, parameters, optima at the edge of the space."""

from collections import Counter
from collections.abc import Iterator, Mapping
from math import log
from statistics import median
from typing import Any, Final

import numpy as np

from toolkit.models import GRIDS
from toolkit.models.spaces import Distribution, make_grid, make_space, to_params
from toolkit.report.document import (
    Cell,
    Figure,
    Fold,
    Paragraph,
    Row,
    Section,
    Table,
    count_words,
    format_number,
)
from toolkit.report.facts import StudyFacts
from toolkit.systems import System
from toolkit.validation import SearchResult

_CHOICES: Final = ("booster", "statistics", "screening", "imbalance")

_INNER: Final = (
    "Inner scores select the trial. They are of coarser fits of the trees alone, and cannot be "
    "compared with the scores above."
)
#: Name of the number of rounds among the parameters at an edge.
_ROUNDS: Final = "boosting rounds"
#: A choice this near to an end of its range, as a share of the range, is at the edge.
_EDGE: Final = 0.02
#: Whole numbers of fewer steps than this lie at an end too often for it to mean something.
_FEWEST_STEPS: Final = 4


def search_section(facts: StudyFacts) -> Section | None:
    """Summarise the searches; None where nothing was searched."""
    if not facts.searches:
        return None
    gains = []
    for system, curves in facts.search_curves.items():
        first, last = ([c[k] for c in curves if len(c) and not np.isnan(c[k])] for k in (0, -1))
        if first and last:
            low, high = (format_number(sum(side) / len(side)) for side in (first, last))
            gains.append(f"{system} from {low} to {high}")
    sampled = any(search.n_sampled for each in facts.searches.values() for search in each)
    figure = Figure(
        "search",
        f"Best inner {facts.metric.title} so far over the trials"
        f"{', on a sample of speakers' if sampled else ''}. Thin lines: outer folds; "
        f"thick line: their mean. {_INNER}",
        f"Best inner {facts.metric.title}, mean over folds, first to last trial: "
        f"{'; '.join(gains)}.",
    )
    tables = (figure, _choices_table(facts), _params_table(facts))
    folded = Fold("Course of the searches, choices by fold", tables)
    return Section("search", "Selected hyperparameters", (_lead(facts), folded))


def _lead(facts: StudyFacts) -> Paragraph:
    """Count the configurations that the searches of the primary system selected."""
    shown = facts.primary if facts.primary in facts.searches else next(iter(facts.searches))
    chosen = [search.params for search in facts.searches[shown]]
    words = []
    for name in _CHOICES:
        counted = Counter(str(params[name]) for params in chosen).most_common()
        words.append(f"{name} {', '.join(f'{value} ({n})' for value, n in counted)}")
    return Paragraph(
        f"Selected for {shown}, with the number of outer folds in brackets: {'; '.join(words)}."
    )


def _count_edges(facts: StudyFacts) -> Counter[tuple[str, str, str]]:
    """Count the folds with a choice at the edge of the space, by system, parameter and end.

    The ends are those of the search: the space's, for the rows and columns of each fold.
    A search of a single trial chose nothing and is left out.
    """
    counts: Counter[tuple[str, str, str]] = Counter()
    for system, searches in facts.searches.items():
        records = facts.params[system].values()
        for search, record in zip(searches, records, strict=True):
            if len(search.trials) > 1:
                hits = _edges(facts, search, record["record"])
                counts.update((system, *hit) for hit in hits)
            if search.n_rounds >= facts.options["rounds"]:
                counts[system, _ROUNDS, "high"] += 1
    return counts


def _edges(
    facts: StudyFacts, search: SearchResult, record: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """Name each parameter at an end of its range, and the end."""
    booster, options = search.params["booster"], facts.options
    if options["sampler"] != "grid":
        space = make_space(booster, options["space"].get(booster, {}))
    else:
        own = options["grid"].get(booster)
        space = make_grid(booster, own) if own else GRIDS[booster]
    lows, highs = (
        to_params(
            booster,
            {name: _ends(distribution)[end] for name, distribution in space.items()},
            n_rows=sum(record["before"].values()),
            n_features=record["n_features"],
        )
        for end in (0, 1)
    )
    for name, low in lows.items():
        high, chosen = highs[name], search.params.get(name)
        if isinstance(low, bool | str) or low == high or chosen is None:
            continue
        if isinstance(low, int) and isinstance(high, int) and high - low < _FEWEST_STEPS:
            continue
        share = _share(float(chosen), *sorted((float(low), float(high))))
        if share <= _EDGE or share >= 1 - _EDGE:
            yield name, "low" if share <= _EDGE else "high"


def _ends(distribution: Distribution) -> tuple[Any, Any]:
    """Give both ends of a range, or one value twice where there is none."""
    if not hasattr(distribution, "choices"):
        return distribution.low, distribution.high
    choices = distribution.choices
    # One of two values is always chosen, so two are no range.
    if len(choices) < 3 or any(isinstance(value, bool | str) for value in choices):
        return choices[0], choices[0]
    return min(choices), max(choices)


def _share(value: float, low: float, high: float) -> float:
    """Compute the share of a range below a value; ranges of many sizes by their logarithm."""
    if low > 0 and high / low >= 4:
        low, high, value = log(low), log(high), log(value)
    return (value - low) / (high - low)


def _choices_table(facts: StudyFacts) -> Table:
    rows: list[Row] = []
    for system, searches in facts.searches.items():
        for (fold, record), search in zip(facts.params[system].items(), searches, strict=True):
            states = Counter(trial["state"] for trial in search.trials)
            choices = (str(record["params"][name]) for name in _CHOICES)
            sizes = (record["record"]["n_features"], search.n_rounds, search.score)
            trials = (len(search.trials), states["pruned"], states["fail"], search.stopped_by)
            rows.append([system, fold, *choices, *sizes, *trials])
    header = ["system", "fold", *_CHOICES, "features", "rounds"]
    header += [f"inner {facts.metric.title}", "trials", "pruned", "failed", "stopped by"]
    note = f"{_INNER} Every trial is in internal/search.db."
    return Table.of("choices", "Result of each search by fold.", header, rows, note=note)


def _params_table(facts: StudyFacts) -> Table:
    edges = _count_edges(facts)
    rows: list[Row] = []
    for system, searches in facts.searches.items():
        names = dict.fromkeys(name for search in searches for name in search.params)
        for name in names:
            if name in _CHOICES:
                continue
            values = [search.params[name] for search in searches if name in search.params]
            hits = [
                f"{edges[system, name, end]} at the {end} end"
                for end in ("low", "high")
                if edges[system, name, end]
            ]
            rows.append([system, name, *_spread(values), ", ".join(hits) or None])
    return Table.of(
        "params",
        "Selected hyperparameters over the outer folds.",
        ["system", "hyperparameter", "lowest", "median", "highest", "at the edge of its range"],
        rows,
        note=(
            "Names are those of the booster. Categorical values are counted over the folds. "
            f"The edge is the outermost {_EDGE:.0%} of a range.".replace("%", " %")
        ),
    )


def _spread(values: list[Any]) -> Row:
    """Give least, median and most of numbers; counts of other values."""
    if any(isinstance(value, bool | str) for value in values):
        counted = Counter(map(str, values)).most_common()
        return [None, ", ".join(f"{value} in {n}" for value, n in counted), None]
    numbers = [float(value) for value in values]
    shown = min(numbers), median(numbers), max(numbers)
    return [Cell(f"{value:.3g}", value) for value in shown]


def search_limits(facts: StudyFacts) -> dict[str, Any]:
    """Count what the caveats name: limits of time, failures, edges, rounds and fallbacks."""
    searches = [search for found in facts.searches.values() for search in found]
    stops = [search.stopped_by for search in searches]
    further = [facts.params[name] for name in facts.params if System.parse(name).is_seed]
    stops += [record["stopped_by"] for by_fold in further for record in by_fold.values()]
    states = Counter(trial["state"] for search in searches for trial in search.trials)
    edges, capped = [], []
    for (system, param, end), n in _count_edges(facts).items():
        n_folds = len(facts.searches[system])
        # In half of the folds: a single choice at an end is chance.
        if 2 * n < n_folds:
            continue
        folds = f"in {n} of {count_words(n_folds, 'fold')}"
        if param == _ROUNDS:
            capped.append(f"{system} {folds}")
        else:
            edges.append(f"{system}: {param} lies at the {end} end of its range {folds}")
    fallbacks = {
        system: sum(
            bool(each["record"].get("fallbacks")) for each in facts.params[system].values()
        )
        for system in facts.searches
    }
    limited, failed = stops.count("time"), states["fail"]
    counts = {"n_searches": len(stops), "limited": limited, "failed": failed}
    return {**counts, "edges": edges, "capped": capped, "fallbacks": fallbacks}
