"""The numbers that a report is made of, and their look-ups."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.explain import ShareRecord
from toolkit.explain.shapley import GameRecord
from toolkit.explain.shares import Attribution
from toolkit.fusion.fuse import FusionRecord
from toolkit.pooling import FeatureName
from toolkit.pooling.statistics import VALUE
from toolkit.report.document import Cell, count_words, join_names
from toolkit.systems import System, logistic_name, seed_name
from toolkit.validation import METRICS, Comparison, Predictions, Score, SearchResult
from toolkit.validation.comparison import ALPHA, better_baseline
from toolkit.validation.metrics import Metric
from toolkit.validation.people import compare_groups, group_people
from toolkit.validation.scores import score_groups


@dataclass(frozen=True, eq=False)
class StudyFacts:
    """The numbers of a study.

    Parameters
    ----------
    data : mapping
        The recordings, as ``data.json`` describes them.
    speakers : tuple of str
        Speakers of all utterances, tested or not, sorted.
    counts : sequence of sequence of int
        Utterances of each class by each speaker.
    predictions : mapping of str to Predictions
        System to its predictions, in the order of the tables.
    scores : sequence of Score
        All scores of every system.
    comparisons : sequence of Comparison
        One per compared pair of systems and family.
    fusion : sequence of FusionRecord
        The fusion ledger; empty where nothing was fused.
    params : mapping
        System to fold to the choices of its search, as in ``params.json``.
    searches : mapping of str to sequence of SearchResult
        Searched system to its searches, fold by fold.
    audit, options : mapping
        The result of the audit as in ``audit.json``; the resolved options.
    unfinished : tuple of str, default=()
        Systems that lack folds and are in no table yet.
    attribution : Attribution or None, default=None
        Shares and games of the modalities; None where nothing was explained.
    curve : mapping of int to Score
        The learning curve: number of training speakers to the score of a fixed configuration.
    group_scores : sequence of Score, default=()
        The primary system and the baseline by groups of people.
    gaps : sequence of Comparison, default=()
        The largest gap between two groups of each column.
    errors : tuple of float, default=()
        Errors for which the primary system may leave utterances unanswered.
    n_contents, n_known_content, n_known_session : int, default=0
        Contents of all utterances, 0 where they are unknown; and tested utterances whose
        content, or whose session of several, is in their training rows.
    """

    data: Mapping[str, Any]
    speakers: tuple[str, ...]
    counts: Sequence[Sequence[int]]
    predictions: Mapping[str, Predictions]
    scores: Sequence[Score]
    comparisons: Sequence[Comparison]
    fusion: Sequence[FusionRecord]
    params: Mapping[str, Any]
    searches: Mapping[str, Sequence[SearchResult]]
    audit: Mapping[str, Any]
    options: Mapping[str, Any]
    unfinished: tuple[str, ...] = ()
    attribution: Attribution | None = None
    curve: Mapping[int, Score] = field(default_factory=dict)
    group_scores: Sequence[Score] = ()
    gaps: Sequence[Comparison] = ()
    errors: tuple[float, ...] = ()
    n_contents: int = 0
    n_known_content: int = 0
    n_known_session: int = 0

    # A report looks up thousands of scores: index them once.
    @cached_property
    def _scores(self) -> dict[tuple[str, str, str, str], list[Score]]:
        scores: dict[tuple[str, str, str, str], list[Score]] = {}
        for score in (*self.scores, *self.group_scores):
            key = (score.system, score.metric, score.scope, score.group)
            scores.setdefault(key, []).append(score)
        return scores

    @cached_property
    def _pairs(self) -> dict[frozenset[str], Comparison]:
        # A pair of both families is shown with the p of the confirmatory one.
        later = sorted(self.comparisons, key=lambda pair: pair.family == "confirmatory")
        return {frozenset((pair.a, pair.b)): pair for pair in later}

    @cached_property
    def groups(self) -> dict[str, dict[str, list[str]]]:
        """Columns that group people, to their groups of tested people."""
        return {
            column: group_people({name: values[name] for name in self.tested_speakers})
            for column, values in self.data.get("traits", ())
        }

    @property
    def data_name(self) -> str:
        """Name of the data set, by its table and the folder of it."""
        if self.data["generated"]:
            return "generated data"
        return "/".join(filter(None, (self.data["corpus"], self.data["source"])))

    @property
    def data_size(self) -> str:
        """Table, utterances, speakers, classes and modalities of the data, in one line."""
        return (
            f"{self.data['source']}: {count_words(sum(map(sum, self.counts)), 'utterance')} by "
            f"{count_words(len(self.speakers), 'speaker')}, {len(self.classes)} classes, "
            f"{join_names(list(self.data['modalities']))}"
        )

    @property
    def metric(self) -> Metric:
        """The metric of the search, and the first number of the report."""
        return METRICS[str(self.options["metric"])]

    @property
    def sign(self) -> int:
        """1 where a higher score is better, -1 where a lower one is."""
        return 1 if self.metric.direction == "maximize" else -1

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their codes."""
        return tuple(self.data["classes"])

    @property
    def drawn_classes(self) -> list[int]:
        """Codes of the classes with plots of their own; of two, one mirrors the other."""
        return [1] if len(self.classes) == 2 else list(range(len(self.classes)))

    @property
    def has_curves(self) -> bool:
        """Whether there are two classes, and both are tested."""
        labels = next(iter(self.predictions.values())).labels
        return len(self.classes) == len(set(labels.tolist())) == 2

    @property
    def systems(self) -> list[str]:
        """Boosted and fused systems, without baselines and variants."""
        return [
            s.name
            for s in map(System.parse, self.predictions)
            if not (s.is_baseline or s.is_logistic or s.is_offset or s.is_subset or s.is_seed)
        ]

    @property
    def outside(self) -> list[str]:
        """Systems from outside and fusions with them, for which the audit cannot vouch."""
        return [name for name in self.systems if System.parse(name).is_outside]

    @property
    def own(self) -> list[str]:
        """Systems of the study itself."""
        return [name for name in self.systems if name not in self.outside]

    @property
    def published(self) -> Sequence[Mapping[str, Any]]:
        """Scores of the literature."""
        return tuple(self.options.get("published", ()))

    @property
    def repeated(self) -> list[str]:
        """Systems whose searches were repeated under every seed of the study."""
        asked = [n for n in self.systems if System.parse(n).is_asked]
        return [n for n in asked if seed_name(n, 1) in self.predictions]

    @property
    def baselines(self) -> list[str]:
        """Majority class, no-information rate and logistic regressions."""
        parsed = map(System.parse, self.predictions)
        return [system.name for system in parsed if system.is_baseline or system.is_logistic]

    # Every verdict asks for it, and both baselines are scored to find it.
    @cached_property
    def baseline(self) -> str:
        """The better of ``majority`` and ``no-information``: what a system has to beat."""
        return better_baseline(self.predictions, self.metric.name).system

    @property
    def primary(self) -> str:
        """The system that the study is about, finished or not."""
        return str(self.data["primary"][-1])

    @property
    def confused(self) -> list[str]:
        """Systems with a confusion matrix, the primary one first."""
        logistic = [name for name in self.baselines if System.parse(name).is_logistic]
        names = [*self.systems, *logistic]
        return sorted(names, key=lambda name: name != self.primary)

    @property
    def ranked(self) -> list[str]:
        """At most five systems with curves: the primary one, its logistic, then the best."""
        others = sorted(self.confused, key=lambda name: -self.sign * self.score(name).value)
        first = [self.primary, logistic_name(self.primary)]
        names = [*(name for name in first if name in self.confused), *others]
        known = [name for name in names if self.predictions[name].has_proba]
        return list(dict.fromkeys(known))[:5]

    @property
    def miscalibrated(self) -> list[str]:
        """Systems with a larger calibration error than chance explains: p at most .05 each."""
        known = [name for name in self.confused if self.predictions[name].has_proba]
        return [name for name in known if self.score(name, "ece_p").value <= ALPHA]

    @property
    def unexplained(self) -> list[str]:
        """Finished models without contributions, where others have them."""
        if self.attribution is None:
            return []
        models = [name for name in self.systems if name in self.searches]
        return [name for name in models if name not in self.attribution.totals]

    @property
    def search_curves(self) -> dict[str, list[NDArray[np.float64]]]:
        """Best scores so far after each trial, by system and fold; NaN before the first."""
        better = np.fmax if self.metric.direction == "maximize" else np.fmin

        def best_so_far(search: SearchResult) -> NDArray[np.float64]:
            trials = search.trials
            scores = [t["score"] if t["state"] == "complete" else None for t in trials]
            curve: NDArray[np.float64] = better.accumulate(np.array(scores, dtype=float))
            return curve

        return {name: [*map(best_so_far, found)] for name, found in self.searches.items()}

    @property
    def modalities(self) -> list[str]:
        """Systems of one modality."""
        return [name for name in self.systems if name in self.data["available"]]

    @property
    def fused(self) -> list[str]:
        """Systems of several modalities, without ``best-single`` and means over seeds."""
        asked = [n for n in self.own if System.parse(n).is_asked]
        return [n for n in asked if n not in self.modalities]

    @property
    def folds(self) -> list[str]:
        """Outer folds with a tested utterance, sorted; the same for every system."""
        table = next(iter(self.predictions.values()))
        return sorted(set(table.fold_names().tolist()))

    @property
    def tested_speakers(self) -> list[str]:
        """Speakers with a tested utterance, sorted; the same for every system."""
        table = next(iter(self.predictions.values()))
        return sorted(set(table.speakers.tolist()))

    @property
    def n_speakers(self) -> int:
        """Number of tested speakers."""
        return len(self.tested_speakers)

    @property
    def has_one_label_each(self) -> bool:
        """Whether no speaker has two labels."""
        return all(sum(count > 0 for count in counts) <= 1 for counts in self.counts)

    @property
    def n_sessions(self) -> int:
        """Number of tested sessions; 0 where the recordings have none."""
        table = next(iter(self.predictions.values()))
        return 0 if table.sessions is None else len(set(table.sessions.tolist()))

    @property
    def separable_sessions(self) -> bool:
        """Whether whole sessions can be held out: three or more, and no speaker in two."""
        table = next(iter(self.predictions.values()))
        sessions = () if table.sessions is None else table.sessions.tolist()
        pairs = set(zip(table.speakers.tolist(), sessions, strict=False))
        return self.n_sessions > 2 and len(pairs) == self.n_speakers

    @property
    def has_intervals(self) -> bool:
        """Whether there are speakers enough for the intervals of pooled scores."""
        return self.score(self.baseline).low is not None

    @property
    def intervals(self) -> str:
        """Words of a caption on the intervals, or on their absence."""
        known = "with 95 % intervals over speakers"
        return known if self.has_intervals else "without intervals (below five speakers)"

    def score(
        self,
        system: str,
        metric: str = "",
        *,
        scope: str = "all",
        group: str = "",
        kind: str = "",
    ) -> Score:
        """Pick one score, of the study's metric and of any kind by default.

        Parameters
        ----------
        system, metric : str
            Name of the system, and key of METRICS.
        scope, group, kind : str
            As in :class:`toolkit.validation.Score`.

        Returns
        -------
        Score
            The first match.

        Raises
        ------
        KeyError
            If there is none.
        """
        key = (system, metric or self.metric.name, scope, group)
        for score in self._scores.get(key, []):
            if not kind or score.kind == kind:
                return score
        raise KeyError(f"No score of {key} is of kind {kind!r}.")

    def compare(self, a: str, b: str) -> Comparison | None:
        """Pick the comparison of two systems.

        Parameters
        ----------
        a, b : str
            Their names.

        Returns
        -------
        Comparison or None
            Of `a` minus `b`; the p of a pair of both families is the confirmatory one. None if
            not compared.
        """
        pair = self._pairs.get(frozenset((a, b)))
        if pair is None or pair.a == a:
            return pair
        low, high = (None if end is None else -end for end in (pair.high, pair.low))
        return replace(pair, a=a, b=b, difference=-pair.difference, low=low, high=high)

    def with_groups(self, seed: int) -> "StudyFacts":
        """Score the primary system by groups of people, as ``--by`` asks.

        Parameters
        ----------
        seed : int
            Seed of the random groups.

        Returns
        -------
        StudyFacts
            With the scores and gaps; the same where no column groups people.
        """
        if not self.groups or self.primary not in self.predictions:
            return self
        metric, groups = self.metric.name, self.groups
        tables = [self.predictions[name] for name in (self.primary, self.baseline)]
        scores = [s for table in tables for s in score_groups(table, metric, groups)]
        gaps = compare_groups(tables[0], metric, groups, seed)
        return replace(self, group_scores=scores, gaps=gaps)


def find_game(
    attribution: Attribution, kind: str, players: str, *, game: str = "", group: str = ""
) -> GameRecord | None:
    """Pick one number of a game; by default of the refit game, else of the late one."""
    found = {
        r.game: r
        for r in attribution.games
        if (r.kind, r.group, r.players) == (kind, group, players)
    }
    # Refit coalitions see features together, late ones only probabilities.
    return found.get(game) if game else found.get("refit") or found.get("late-soft")


def to_gain(
    record: GameRecord, *, turn: bool = False
) -> tuple[float, float | None, float | None]:
    """Give a number of a game and its interval as a gain: above 0 is better, also of losses.

    - turn: Whether the gain is that of the second of a pair over the first.
    """
    if _is_loss(record.metric) == turn:
        return record.value, record.low, record.high
    # From 0, since a minus of 0 is shown as -0.0.
    low, high = (None if end is None else 0.0 - end for end in (record.high, record.low))
    return 0.0 - record.value, low, high


def find_shares(
    attribution: Attribution,
    level: str,
    *,
    outcome: str = "all",
    class_name: str = "",
    speaker: str = "",
) -> dict[tuple[str, str], ShareRecord]:
    """Pick the shares of the system of all modalities, by modality and part."""
    return {
        (r.modality, r.part): r
        for r in attribution.shares
        if (r.system, r.level, r.outcome, r.speaker, r.class_name)
        == (attribution.system, level, outcome, speaker, class_name)
    }


def tabulate_shares(
    attribution: Attribution, level: str
) -> dict[tuple[str, str], tuple[Cell, float | None, list[float | None]]]:
    """Give per part its share, that under permuted labels, and those when right and wrong."""
    right, wrong = (find_shares(attribution, level, outcome=o) for o in ("right", "wrong"))
    return {
        key: (
            Cell.of_score(r.share, r.low, r.high),
            r.permuted,
            [found[key].share if key in found else None for found in (right, wrong)],
        )
        for key, r in find_shares(attribution, level).items()
    }


def rank_shares(attribution: Attribution, level: str) -> list[ShareRecord]:
    """Pick the shares of the system of all modalities, the largest first."""
    return sorted(find_shares(attribution, level).values(), key=lambda r: -r.share)


def name_share(share: ShareRecord) -> str:
    """Name the modality, or the modality and family, of a share."""
    return " ".join(filter(None, (share.modality, share.part)))


def name_feature(facts: StudyFacts, feature: str, longest: int = 0) -> str:
    """Name a pooled feature for readers; another text, such as "other features", stays.

    - longest: Characters of the whole, for which the name of the dimension is shortened, so
      that modality and statistic stay; 0 is any number.
    """
    try:
        name = FeatureName.parse(feature)
    except ValueError:
        return feature
    named = facts.data["modalities"].get(name.modality, {}).get("dimensions")
    statistic = "" if name.statistic == VALUE else f" {name.statistic}"
    if named:
        dimension = str(named[name.dimension])
        most = max(longest - len(name.modality) - 2 - len(statistic), 8)
        if longest and len(dimension) > most:
            dimension = dimension[: most - 1] + "…"
        return f"{name.modality}: {dimension}{statistic}"
    return f"{name.modality}, dimension {name.dimension}{statistic}"


def _is_loss(metric: str) -> bool:
    """Check whether a lower value of a metric is better."""
    return metric in METRICS and METRICS[metric].direction == "minimize"


def format_points(value: float, metric: str, *, sign: bool = True) -> str:
    """Write a difference of scores, in points unless the metric is a loss."""
    text = f"{value:+.3f}" if _is_loss(metric) else f"{100 * value:+.1f}"
    return text if sign else text.removeprefix("+")
