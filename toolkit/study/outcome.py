"""Results in Python, as tables and in notebooks: of a study, and of its predictions."""

import csv
import io
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from html import escape
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from toolkit.data import Manifest
from toolkit.files import FolderError, format_csv, parse_records, unescape_formula
from toolkit.fusion.inputs import NewPredictions
from toolkit.pooling import FeatureTable
from toolkit.report import StudyFacts, draw_figures, render_figure
from toolkit.report.document import NONE
from toolkit.study.folder import StudyFolder
from toolkit.study.terminal import is_quiet, print_json, print_lines, print_table
from toolkit.systems import MAJORITY, System, variant_name
from toolkit.validation import METRICS, Comparison, Predictions, Score, score_predictions
from toolkit.validation.scores import find_score

#: Columns of words; all others hold numbers.
_TEXTS: Final = frozenset(
    {"system", "variant", "utterance", "speaker", "session", "label", "predicted", "metric"}
    | {"scope", "group", "method", "family", "a", "b"}
)
#: Millionths: the digits of probabilities of new utterances.
_UNITS: Final = 10**6


def format_score(score: Score) -> str:
    """Write a score and its 95 % interval."""
    interval = "" if score.low is None else f" [{score.low:.3f}, {score.high:.3f}]"
    return f"{score.value:.3f}{interval}"


def format_scores(scores: Iterable[Score]) -> str:
    """Write scores as CSV; those with other decision thresholds are a variant of a system."""
    names = [field.name for field in fields(Score)[1:]]
    give_rest = attrgetter(*names)
    rows = []
    for score in scores:
        system = System.parse(score.system)
        variant = system.variant if system.is_offset else ""
        name = system.with_variant("").name if variant else score.system
        rows.append((name, variant, *give_rest(score)))
    return format_csv(["system", "variant", *names], rows)


def parse_scores(text: str) -> list[Score]:
    """Read the text of :func:`format_scores` back."""
    variants = [row["variant"] for row in csv.DictReader(io.StringIO(text, newline=""))]
    return [
        replace(score, system=variant_name(score.system, variant)) if variant else score
        for score, variant in zip(parse_records(Score, text), variants, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Drawing:
    """A figure that a notebook shows; ``ax`` is for changes."""

    ax: Any

    def _repr_svg_(self) -> str:
        return render_figure(self.ax, "svg").decode("utf-8")


@dataclass(frozen=True, slots=True, repr=False)
class StudyResult:
    """The results of a study.

    - systems: System to its out-of-fold predictions, in the order of the tables.
    - all_scores, all_comparisons: As records; ``scores`` and ``comparisons`` are DataFrames.
    - unfinished: Systems that lack folds and are therefore in no table.
    """

    folder: Path
    systems: Mapping[str, Predictions]
    all_scores: tuple[Score, ...]
    all_comparisons: tuple[Comparison, ...]
    unfinished: tuple[str, ...]

    def __repr__(self) -> str:
        return f"<StudyResult of {self.folder}: {', '.join(self._shown)}>"

    def _repr_html_(self) -> str:
        page = escape(str(self.folder / "report.html"))
        return f'{self.table().to_html()}<p>Report: <a href="{page}">{page}</a></p>'

    @property
    def _shown(self) -> list[str]:
        parsed = [System.parse(name) for name in self.systems]
        return [o.name for o in parsed if not (o.is_offset or o.is_subset or o.is_seed)]

    @property
    def scores(self) -> pd.DataFrame:
        """All scores with their intervals: ``scores.csv``."""
        return self._read("scores.csv")

    @property
    def comparisons(self) -> pd.DataFrame:
        """Paired tests of every pair of systems: ``comparisons.csv``."""
        return self._read("comparisons.csv")

    @property
    def predictions(self) -> pd.DataFrame:
        """Out-of-fold predictions, one row per system and utterance: ``predictions.csv``."""
        return self._read("predictions.csv")

    def _read(self, name: str) -> pd.DataFrame:
        if not self.systems:  # a single unit ran, and no table is written yet
            return pd.DataFrame()
        # As text first: speaker 01 stays 01, and NA is a name.
        table = pd.read_csv(self.folder / name, dtype=str, keep_default_na=False)
        for column in table.columns:
            if column in _TEXTS:
                table[column] = table[column].map(unescape_formula)
            else:
                table[column] = pd.to_numeric(table[column])
        names = {n: f"p_{unescape_formula(n[2:])}" for n in map(str, table) if n[:2] == "p_"}
        return table.rename(columns=names)

    def table(
        self, metrics: Sequence[str] = ("f1_micro", "f1_macro", "uar", "log_loss")
    ) -> pd.DataFrame:
        """Show scores and 95 % intervals as text, one row per system."""
        found = {
            METRICS[metric].title: [
                format_score(find_score(self.all_scores, name, metric))
                if self.systems[name].has_proba or not METRICS[metric].needs_proba
                else NONE
                for name in self._shown
            ]
            for metric in metrics
        }
        return pd.DataFrame(found, index=pd.Index(self._shown, name="system"))

    def show(self, metric: str, *, as_json: bool = False) -> None:
        """Print the scores, as a table or as JSON."""
        if as_json:
            scores = [asdict(score) for score in self.all_scores if score.scope == "all"]
            found = {"folder": str(self.folder), "unfinished": list(self.unfinished)}
            print_json(found | {"scores": scores})
        elif not is_quiet():
            names = tuple(dict.fromkeys((metric, "f1_micro", "uar")))
            print_table(
                ("system", *(METRICS[name].title for name in names), "n"),
                [
                    (name, *cells, len(self.systems[str(name)]))
                    for name, cells in self.table(names).iterrows()
                ],
            )
            if any(System.parse(name).is_outside for name in self.systems):
                print_lines("A plus in a name: brought from outside; not audited.")
            known = any(s.low is not None for s in self.all_scores if s.metric == "f1_micro")
            intervals = (
                "95 %, jackknife over speakers" if known else "none (below five speakers)"
            )
            print_lines(
                f"Intervals: {intervals}. Other decision thresholds: scores.csv.",
                f"Report: {self.folder / 'report.html'}",
                f"Searches: toolkit dashboard {shlex.quote(str(self.folder))}",
            )

    def plot_scores(self, metric: str | None = None) -> _Drawing:
        """Draw scores and intervals by one metric, by default that of the search."""
        metric = metric or StudyFolder(self.folder).read_config().metric
        # The figure reads systems and scores alone.
        numbers = (self.systems, self.all_scores)
        known: Any = ({}, (), (), *numbers, (), (), {}, {}, {}, {"metric": metric})
        facts = StudyFacts(*known)
        return _Drawing(next(ax for stem, ax in draw_figures(facts) if stem == "scores"))


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class NewResult:
    """Predictions of a study's final models for new utterances.

    - utterances, speakers, known, labels: One per utterance, sorted; an unknown speaker is
      empty, and an unknown label -1. Known: the speaker or utterance was in training.
    - systems: Boosted systems, late fusions, then variants with class offsets.
    - priors: Class frequencies of the study.
    - manifest, trained: The table of new utterances, and that of the study.
    - tables: Pooled features by modality, never normalised.
    """

    classes: tuple[str, ...]
    utterances: NDArray[np.str_]
    speakers: NDArray[np.str_]
    known: NDArray[np.bool_]
    systems: Mapping[str, NewPredictions]
    primary: str
    labels: NDArray[np.int64]
    priors: NDArray[np.float64]
    manifest: Manifest
    trained: Manifest
    tables: Mapping[str, FeatureTable]

    def __repr__(self) -> str:
        return f"<Predictions of {len(self.utterances):,} utterances by {self.primary}>"

    def _repr_html_(self) -> str:
        return str(self.table().to_html(index=False, max_rows=20))

    def choose(self, system: str | None = None) -> str:
        """Check the name of a system, by default the primary one."""
        name = self.primary if system is None else system
        if name not in self.systems:
            reason = "it has no final model"
            if name.endswith("-logistic"):
                reason = "a study fits its logistic regressions in the outer folds alone"
            known = ", ".join(self.names)
            raise FolderError(f"{name} cannot predict: {reason}. Choose among {known}.")
        return name

    @property
    def names(self) -> list[str]:
        """Systems, without those that are others with class offsets."""
        return [name for name in self.systems if not System.parse(name).is_offset]

    def table(self, system: str | None = None) -> pd.DataFrame:
        """Give one row per utterance, by the primary system or another one."""
        found = self.systems[self.choose(system)]
        # Unknown where no speaker is named: a new utterance may be of a known speaker.
        unsure = (self.speakers == "") & ~self.known
        proba = _round(found.proba)
        return pd.DataFrame(
            {
                "utterance": self.utterances,
                "speaker": self.speakers,
                "in_training": pd.Series(self.known.astype(int), dtype="Int64").mask(unsure),
                "present": found.present.astype(int),
                "predicted": np.array(self.classes)[found.y_pred],
            }
            | {f"p_{name}": proba[:, k] for k, name in enumerate(self.classes)}
        )

    def table_all(self) -> pd.DataFrame:
        """Give the tables of all systems below each other, with a column ``system``."""
        long = pd.concat({name: self.table(name) for name in self.names}, names=["system"])
        return long.droplevel(1).reset_index()

    def score(self, systems: Sequence[str]) -> list[Score]:
        """Score systems, and the majority class, on labelled utterances of unseen speakers."""
        rows = np.flatnonzero((self.labels >= 0) & ~self.known)
        if not len(rows):
            return []
        n = len(self.labels)
        majority = NewPredictions(
            np.tile(self.priors, (n, 1)), np.full(n, self.priors.argmax()), np.ones(n, bool)
        )
        given = {MAJORITY: majority} | {name: self.systems[name] for name in systems}
        # Rows without a speaker are one group, which has no interval.
        speakers = np.where(self.speakers == "", "unknown", self.speakers)[rows]
        return [
            score
            for name, found in given.items()
            for score in score_predictions(
                Predictions(
                    system=name,
                    classes=self.classes,
                    utterances=self.utterances[rows],
                    speakers=speakers,
                    sessions=None,
                    folds=np.zeros(len(rows), dtype=np.int64),
                    present=found.present[rows],
                    labels=self.labels[rows],
                    proba=found.proba[rows],
                    y_pred=found.y_pred[rows],
                )
            )
            if score.scope != "fold"
        ]


def _round(proba: NDArray[np.float64]) -> NDArray[np.float64]:
    """Round each row to millionths that sum to 1: the largest remainders are rounded up."""
    scaled = proba * _UNITS
    whole = np.floor(scaled)
    lacking = _UNITS - whole.sum(axis=1, keepdims=True)
    order = np.argsort(whole - scaled, axis=1, kind="stable")
    rank = np.argsort(order, axis=1, kind="stable")
    rounded: NDArray[np.float64] = (whole + (rank < lacking)) / _UNITS
    return rounded
