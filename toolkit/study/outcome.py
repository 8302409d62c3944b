"""The results of a study in Python: tables, one figure, and their display in a notebook."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from toolkit.report import StudyFacts, draw_figures, render_figure
from toolkit.study.folder import StudyFolder
from toolkit.systems import System
from toolkit.validation import METRICS, Comparison, Predictions, Score, find_score


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
        return [one.name for one in parsed if not (one.is_offset or one.is_subset)]

    @property
    def scores(self) -> pd.DataFrame:
        """All scores with their intervals, as in ``scores.csv``."""
        return pd.DataFrame([asdict(score) for score in self.all_scores])

    @property
    def comparisons(self) -> pd.DataFrame:
        """Paired tests of every pair of systems, as in ``comparisons.csv``."""
        return pd.DataFrame([asdict(pair) for pair in self.all_comparisons])

    @property
    def predictions(self) -> pd.DataFrame:
        """Out-of-fold predictions, one row per system and utterance."""
        parts = [
            pd.DataFrame(
                {
                    "system": name,
                    "utterance": found.utterances,
                    "speaker": found.speakers,
                    "session": found.sessions,
                    "fold": found.folds,
                    "present": found.present,
                    "label": np.array(found.classes)[found.labels],
                    "predicted": np.array(found.classes)[found.y_pred],
                }
                | {f"p_{one}": found.proba[:, k] for k, one in enumerate(found.classes)}
            )
            for name, found in self.systems.items()
            if not System.parse(name).is_offset
        ]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    def table(
        self, metrics: Sequence[str] = ("f1_micro", "f1_macro", "uar", "log_loss")
    ) -> pd.DataFrame:
        """Show scores and 95 % intervals as text, one row per system."""
        rows = {}
        for name in self._shown:
            found = [find_score(self.all_scores, name, metric) for metric in metrics]
            rows[name] = [
                f"{one.value:.3f}"
                + ("" if one.low is None else f" [{one.low:.3f}, {one.high:.3f}]")
                for one in found
            ]
        titles = [METRICS[metric].title for metric in metrics]
        return pd.DataFrame.from_dict(rows, orient="index", columns=titles).rename_axis(
            "system"
        )

    def plot_scores(self, metric: str | None = None) -> _Drawing:
        """Draw scores and intervals by one metric, by default that of the search."""
        metric = metric or StudyFolder(self.folder).read_config().metric
        facts = StudyFacts(
            data={},
            speakers=(),
            counts=(),
            predictions=self.systems,
            scores=self.all_scores,
            comparisons=(),
            fusion=(),
            params={},
            searches={},
            audit={},
            options={"metric": metric},
        )
        return _Drawing(next(ax for stem, ax in draw_figures(facts) if stem == "scores"))
