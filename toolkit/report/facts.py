"""All that a report is made of: what a study saved, and the ways to look it up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from toolkit.report.document import NONE, Cell, format_number
from toolkit.systems import BEST_SINGLE, MAJORITY, System
from toolkit.validation import METRICS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from toolkit.explain import GameRecord, PermutationRecord, ShareRecord
    from toolkit.explain.shares import Attribution
    from toolkit.fusion import FusionRecord
    from toolkit.validation import Comparison, Metric, Predictions, Score, SearchResult


@dataclass(frozen=True, slots=True, eq=False)
class StudyFacts:
    """The numbers of a study.

    Parameters
    ----------
    data : mapping
        What ``data.json`` says of the recordings.
    speakers : tuple of str
        Speakers of all utterances, tested or not, sorted.
    counts : sequence of sequence of int
        Utterances of each class by each speaker.
    predictions : mapping of str to Predictions
        System to its predictions, in the order of the tables.
    scores : sequence of Score
        Of every system.
    comparisons : sequence of Comparison
        Of every pair that was compared.
    fusion : sequence of FusionRecord
        The fusion ledger; empty where nothing was fused.
    params : mapping
        What ``params.json`` says: system to fold to what was chosen there.
    searches : mapping of str to sequence of SearchResult
        Searched system to its searches, fold by fold.
    audit : mapping
        The leakage ledger's verdict.
    options : mapping
        What decided the study.
    unfinished : tuple of str, default=()
        Systems that lack folds and are in no table yet.
    evidence : Attribution or None, default=None
        What is known of which modality drives it; None where nothing was explained.
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
    evidence: Attribution | None = None
    _scores: dict[tuple[str, str, str, str], list[Score]] = field(init=False, repr=False)
    _pairs: dict[tuple[str, str], Comparison] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        scores: dict[tuple[str, str, str, str], list[Score]] = {}
        for score in self.scores:
            key = (score.system, score.metric, score.scope, score.group)
            scores.setdefault(key, []).append(score)
        object.__setattr__(self, "_scores", scores)
        pairs = {(pair.a, pair.b): pair for pair in self.comparisons}
        object.__setattr__(self, "_pairs", pairs)

    @property
    def metric(self) -> Metric:
        """What the search went by; the report's first number."""
        return METRICS[str(self.options["metric"])]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their codes."""
        return tuple(self.data["classes"])

    @property
    def systems(self) -> list[str]:
        """Boosted and fused systems, without baselines and variants."""
        return [
            name
            for name in self.predictions
            if name != MAJORITY
            and not (system := System.parse(name)).is_logistic
            and not system.is_offset
            and not system.is_subset
        ]

    @property
    def baselines(self) -> list[str]:
        """The majority class and the logistic regressions."""
        return [n for n in self.predictions if n == MAJORITY or System.parse(n).is_logistic]

    @property
    def variants(self) -> list[str]:
        """Systems with class offsets."""
        return [name for name in self.predictions if System.parse(name).is_offset]

    @property
    def modalities(self) -> list[str]:
        """Systems of one modality."""
        return [name for name in self.systems if name in self.data["available"]]

    @property
    def fused(self) -> list[str]:
        """Systems of several modalities, without ``best-single``."""
        return [n for n in self.systems if n not in {*self.modalities, BEST_SINGLE}]

    @property
    def n_speakers(self) -> int:
        """Speakers who were tested."""
        table = next(iter(self.predictions.values()))
        return len(set(table.speakers.tolist()))

    @property
    def n_sessions(self) -> int:
        """Sessions that were tested; 0 where the recordings have none."""
        table = next(iter(self.predictions.values()))
        return 0 if table.sessions is None else len(set(table.sessions.tolist()))

    def score(
        self,
        system: str,
        metric: str = "",
        *,
        scope: str = "all",
        group: str = "",
        kind: str = "",
    ) -> Score:
        """Pick one score.

        Parameters
        ----------
        system : str
            Name of the system.
        metric : str, default=""
            Key of METRICS; the study's own by default.
        scope, group : str, default="all", ""
            Where to look.
        kind : str, default=""
            Start of the score's method; any by default, and the first.

        Returns
        -------
        Score
            The first that fits.

        Raises
        ------
        KeyError
            If none fits.
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
            Their names, in any order.

        Returns
        -------
        Comparison or None
            With the difference as `a` minus `b` in the order it was computed in.
        """
        return self._pairs.get((a, b)) or self._pairs.get((b, a))

    def gain(self, a: str, b: str) -> float:
        """Say by how much one system is better than another.

        Parameters
        ----------
        a, b : str
            Their names.

        Returns
        -------
        float
            Above 0 where `a` is better, whichever way the metric points.
        """
        difference = self.score(a).value - self.score(b).value
        return difference if self.metric.direction == "maximize" else -difference

    def best(self, systems: Sequence[str]) -> str:
        """Name the system of best pooled score.

        Parameters
        ----------
        systems : sequence of str
            At least one.

        Returns
        -------
        str
            The first of equals.
        """
        sign = 1 if self.metric.direction == "maximize" else -1
        return max(systems, key=lambda name: sign * self.score(name).value)


def find_game(
    evidence: Attribution, kind: str, players: str, *, game: str = "", group: str = ""
) -> GameRecord | None:
    """Pick one number of a game."""
    wanted = (game,) if game else ("refit", "late-soft")
    for name in wanted:
        for record in evidence.games:
            found = (record.game, record.kind, record.group, record.players)
            if found == (name, kind, group, players):
                return record
    return None


def find_shares(
    evidence: Attribution,
    level: str,
    *,
    outcome: str = "all",
    class_name: str = "",
    speaker: str = "",
) -> list[ShareRecord]:
    """Pick the shares of the system of all modalities."""
    return [
        r
        for r in evidence.shares
        if (r.system, r.level, r.outcome, r.speaker, r.class_name)
        == (evidence.system, level, outcome, speaker, class_name)
    ]


def format_points(value: float, metric: str) -> str:
    """Write a difference of scores."""
    loss = metric in METRICS and METRICS[metric].direction == "minimize"
    return f"{value:+.3f}" if loss else f"{100 * value:+.1f}"


def points_cell(record: GameRecord | PermutationRecord | None) -> Cell:
    """Write a number of a game, or a loss, with its interval."""
    if record is None:
        return Cell(NONE)
    text = format_points(record.value, record.metric)
    if record.low is not None and record.high is not None:
        low, high = (format_points(end, record.metric) for end in (record.low, record.high))
        text += f" [{low}, {high}]"
    return Cell(text, record.value)


def part_cell(share: ShareRecord) -> Cell:
    """Write a share with its interval."""
    text = format_number(share.share)
    if share.low is not None and share.high is not None:
        text += f" [{format_number(share.low)}, {format_number(share.high)}]"
    return Cell(text, share.share)
