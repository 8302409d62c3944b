"""The page of a transfer: final models of several studies scored on several corpora."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize

from toolkit.report.document import (
    NONE,
    Cell,
    Items,
    Paragraph,
    Report,
    Row,
    Section,
    Table,
    count_words,
    format_interval,
    format_markdown,
    format_number,
    join_names,
)
from toolkit.report.document import Figure as Drawing
from toolkit.report.figures import SHARES, draw_matrix, figure_style, make_axes
from toolkit.systems import MAJORITY
from toolkit.validation import METRICS, Score
from toolkit.validation.scores import find_score

_LEAD: Final = (
    "Each row is a study, each column a labelled corpus. The study's final model, fitted on "
    "all of its people, predicts utterances of people with other names. *: a study on its own "
    "data, out-of-fold, by models that were fitted on fewer people."
)
_NOTES: Final = (
    "Intervals are 95 %, jackknife over the people of the corpus. They describe new people of "
    "that corpus for the model as it was fitted, and no other corpora.\n"
    "Majority: the most frequent of these classes in the study's training rows, on the same "
    "utterances.\n"
    "A column scores the classes that all studies know and the corpus has. The study's "
    "probabilities add up to 1 over these."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferCell:
    """A study's system on the utterances of a corpus; each utterance is in one of the counts.

    - kind: Final model, out-of-fold on the study's own data, or nothing to score.
    - n_unnamed: Scored utterances without a speaker.
    - n_known, n_alike: Utterances by speakers or of ids in training, of which `known` are the
      speakers; and recordings of training under other names.
    - n_apart: Utterances of new people in a table of mostly the study's own data.
    - n_other, n_unlabelled: Utterances with a label that is not scored, and without a label.
    - scores: Of the system and of the majority class; empty without a scored utterance.
    """

    study: str
    corpus: str
    system: str
    kind: Literal["final model", "out-of-fold", "none"]
    classes: tuple[str, ...]
    n_utterances: int
    n_scored: int
    n_people: int
    n_unnamed: int
    n_known: int
    n_alike: int
    n_apart: int
    n_other: int
    n_unlabelled: int
    known: tuple[str, ...]
    generated: bool
    scores: tuple[Score, ...]

    def score(self, metric: str, system: str | None = None) -> Score | None:
        """Find the pooled score of the system or of another one, if there is one."""
        return find_score(self.scores, system or self.system, metric) if self.scores else None

    def count_people(self) -> str:
        """Count the people whose utterances are scored."""
        return "1 person" if self.n_people == 1 else f"{self.n_people:,} people"

    def describe(self) -> str:
        """Describe the utterances: those that are scored, and the others."""
        known = ", ".join(self.known[:5]) + ", ..." * (len(self.known) > 5)
        names = f"of speakers or ids in training ({known})" if known else "of ids in training"
        left_out = [
            (self.n_known, names),
            (self.n_alike, "with the numbers of training utterances under other names"),
            (self.n_apart, "of people outside the study's own data"),
            (self.n_other, "with other labels"),
            (self.n_unlabelled, "without a label"),
        ]
        parts = "; ".join(f"{n:,} {reason}" for n, reason in left_out if n)
        text = f"{self.study} on {self.corpus}: {self.n_scored:,} of "
        text += f"{count_words(self.n_utterances, 'utterance')} scored"
        if self.n_scored:
            text += f" ({self.kind}, {self.count_people()}, {join_names(self.classes)})"
        text += f"; not scored: {parts}." if parts else "."
        if self.n_unnamed:
            text += f" {self.n_unnamed:,} name no speaker, and may be of people in training."
        if self.n_known and self.kind != "out-of-fold":
            text += (
                " If these names are other people here, join them with another column: "
                "--column speaker=HEADER+HEADER."
            )
        return text


def transfer_table(cells: Sequence[TransferCell], metric: str) -> Table:
    """Make the matrix of scores: two rows per study, a column per corpus."""
    studies, corpora = _name_sides(cells)
    rows: list[Row] = [
        [study, system, *(_make_cell(cell, metric, system) for cell in own)]
        for study in studies
        for own in [[cell for cell in cells if cell.study == study]]
        for system in (own[0].system, MAJORITY)
    ]
    caption = f"{METRICS[metric].title}. *: the study's own data, out-of-fold."
    return Table.of("transfer", caption, ["study", "system", *corpora], rows)


def _name_sides(cells: Sequence[TransferCell]) -> tuple[list[str], list[str]]:
    studies = list(dict.fromkeys(cell.study for cell in cells))
    return studies, list(dict.fromkeys(cell.corpus for cell in cells))


def _make_cell(cell: TransferCell, metric: str, system: str) -> Cell:
    score = cell.score(metric, system)
    if score is None:
        return Cell(NONE)
    made = Cell.of_score(score.value, score.low, score.high)
    is_marked = cell.kind == "out-of-fold" and system == cell.system
    return Cell(f"{made.text} *", score.value) if is_marked else made


def format_transfer(cells: Sequence[TransferCell], metric: str) -> str:
    """Write the matrix, its counts and its figure as Markdown."""
    alt = "; ".join(
        f"{cell.study} on {cell.corpus}: {_make_cell(cell, metric, cell.system).text}"
        for cell in cells
    )
    figure = Drawing("transfer", "The matrix; frames mark out-of-fold scores.", alt)
    parts = (Paragraph(_LEAD), transfer_table(cells, metric), figure)
    notes = Items((*(cell.describe() for cell in cells), *_NOTES.splitlines()))
    sections = (Section("matrix", "Scores", parts), Section("notes", "Notes", (notes,)))
    studies, corpora = _name_sides(cells)
    generated = any(cell.generated for cell in cells)
    size = f"{len(studies)} x {len(corpora)}: studies x corpora"
    return format_markdown(Report("Transfer between corpora", size, generated, sections))


@figure_style()
def plot_transfer(cells: Sequence[TransferCell], metric: str) -> Axes:
    """Draw the matrix as a heat map: value, interval and number of people in each cell."""
    studies, corpora = _name_sides(cells)
    chosen = METRICS[metric]
    found = {(cell.study, cell.corpus): cell.score(metric) for cell in cells}
    values = np.array(
        [[s.value if (s := found[a, b]) else np.nan for b in corpora] for a in studies]
    )
    high = chosen.high if np.isfinite(chosen.high) else float(np.nanmax(values, initial=1.0))
    shade = Normalize(chosen.low, high)
    # Dark is good, for losses too.
    colors = SHARES if chosen.direction == "maximize" else SHARES.reversed()
    [ax] = make_axes(1.2 * len(corpora) + 1.9, 0.62 * len(studies) + 1.3)
    texts, framed = {}, []
    for cell in cells:
        place = studies.index(cell.study), corpora.index(cell.corpus)
        text, dark = NONE, False
        if score := found[cell.study, cell.corpus]:
            interval = format_interval(score.low, score.high)
            lines = (format_number(score.value), interval, cell.count_people())
            text = "\n".join(filter(None, lines))
            dark = sum(colors(shade(score.value))[:3]) < 1.5
        texts[place] = text, {"fontsize": 7, "color": "white" if dark else "black"}
        framed += [place] * (cell.kind == "out-of-fold")
    shades: dict[str, Any] = {"cmap": colors, "norm": shade, "aspect": "auto"}
    sides, frame = (studies, corpora), (0.48, 1.2)
    image = draw_matrix(ax, values, sides, texts, framed=framed, frame=frame, **shades)
    ax.set_xlabel("corpus; framed: out-of-fold", fontsize=7)
    ax.set_ylabel("study")
    assert ax.figure is not None
    ax.figure.colorbar(image, ax=ax, shrink=0.9, label=chosen.title)
    return ax
