"""The page of a transfer: final models of several studies scored on several corpora."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from toolkit.report.document import (
    NONE,
    Cell,
    Items,
    Paragraph,
    Report,
    Section,
    Table,
    count_words,
    format_interval,
    format_number,
    make_table,
    score_cell,
)
from toolkit.report.document import Figure as Drawing
from toolkit.report.figures import SHARES, TURNED, figure_style, shorten
from toolkit.report.page import format_markdown
from toolkit.systems import MAJORITY
from toolkit.validation import METRICS, Score, find_score

_LEAD: Final = (
    "Each row is a study, each column a labelled corpus. The study's final model, fitted on "
    "all of its people, predicts utterances of other people."
)
_NOTES: Final = (
    "Intervals are 95 %, jackknife over the people of the corpus. They describe new people of "
    "that corpus for the model as it was fitted, and no other corpora. Majority: the most "
    "frequent of these classes in the study's training rows, on the same utterances.\n"
    "A study on its own data shows its out-of-fold score, since the final model was fitted on "
    "these rows. Out-of-fold models were fitted on fewer people.\n"
    "A column scores the classes that all studies know and the corpus has. Other classes of a "
    "study are left out, and its probabilities add up to 1 over the rest. Other labels are "
    "counted and not scored."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferCell:
    """A study's system on the utterances of a corpus; each utterance is in one of the counts.

    - kind: Final model on unseen people, out-of-fold on its own data, or nothing to score.
    - n_unlabelled, n_other: Utterances without a label, and with a label that is not scored.
    - n_known, n_alike: Utterances by speakers or of ids in training, of which `known` are the
      speakers; and recordings of training under other names.
    - n_apart: Utterances of unseen people in a table of mostly the study's own data.
    - scores: Of the system and of the majority class; empty without a scored utterance.
    """

    study: str
    corpus: str
    system: str
    kind: Literal["unseen people", "out-of-fold", "none"]
    classes: tuple[str, ...]
    n_utterances: int
    n_scored: int
    n_unlabelled: int
    n_other: int
    n_known: int
    n_alike: int
    n_apart: int
    known: tuple[str, ...]
    n_people: int
    generated: bool
    scores: tuple[Score, ...]

    def score(self, metric: str, *, majority: bool = False) -> Score | None:
        """Find the pooled score of the system or of the majority class, if there is one."""
        system = MAJORITY if majority else self.system
        return find_score(self.scores, system, metric) if self.scores else None


def transfer_table(cells: Sequence[TransferCell], metric: str) -> Table:
    """Make the matrix of scores: a row per study, a column per corpus."""
    found = {(cell.study, cell.corpus): cell for cell in cells}
    studies, corpora = _name_sides(cells)
    rows = [
        [study, found[study, corpora[0]].system]
        + [_make_cell(found[study, corpus], metric) for corpus in corpora]
        for study in studies
    ]
    title = METRICS[metric].title
    caption = f"{title} of a study (row) on a corpus (column). *: its own data, out-of-fold."
    return make_table("transfer", caption, ["study", "system", *corpora], rows)


def _name_sides(cells: Sequence[TransferCell]) -> tuple[list[str], list[str]]:
    studies = list(dict.fromkeys(cell.study for cell in cells))
    return studies, list(dict.fromkeys(cell.corpus for cell in cells))


def _make_cell(cell: TransferCell, metric: str) -> Cell:
    score = cell.score(metric)
    if score is None:
        return Cell(NONE)
    made = score_cell(score.value, score.low, score.high)
    return Cell(f"{made.text} *", score.value) if cell.kind == "out-of-fold" else made


def describe_cell(cell: TransferCell) -> str:
    """Describe the utterances of a cell that are not scored; empty where there are none."""
    known = ", ".join(cell.known[:5]) + ", ..." * (len(cell.known) > 5)
    left_out = [
        (
            cell.n_known,
            f"of speakers or ids in training ({known})" if known else "of ids in training",
        ),
        (cell.n_alike, "with the numbers of training utterances under other names"),
        (cell.n_apart, "of people outside the study's own data"),
        (cell.n_other, f"with labels other than {', '.join(cell.classes)}"),
        (cell.n_unlabelled, "without a label"),
    ]
    parts = [f"{n:,} {reason}" for n, reason in left_out if n]
    if not parts:
        return ""
    text = (
        f"{cell.study} on {cell.corpus}: {cell.n_scored:,} of "
        f"{count_words(cell.n_utterances, 'utterance')} scored; not scored: "
        f"{'; '.join(parts)}."
    )
    if cell.n_known and cell.kind != "out-of-fold":
        text += (
            " If these names are other people here, join them with another column: --column "
            "speaker=HEADER+HEADER."
        )
    return text


def format_transfer(cells: Sequence[TransferCell], metric: str) -> str:
    """Write the matrix, its counts and its figure as Markdown."""
    header = (
        *("study", "corpus", "kind", "scored", "people", "in training", "other labels"),
        *("unlabelled", "set apart", "classes", f"majority, {METRICS[metric].title}"),
    )
    rows = [
        (
            *(cell.study, cell.corpus, cell.kind, cell.n_scored, cell.n_people),
            *(cell.n_known + cell.n_alike, cell.n_other, cell.n_unlabelled, cell.n_apart),
            *(", ".join(cell.classes), cell.score(metric, majority=True)),
        )
        for cell in cells
    ]
    counts = make_table("counts", "Utterances and classes of every cell.", header, rows)
    alt = "; ".join(
        f"{cell.study} on {cell.corpus}: {_make_cell(cell, metric).text}" for cell in cells
    )
    figure = Drawing("transfer", "The matrix; frames mark out-of-fold scores.", alt)
    notes = (*filter(None, map(describe_cell, cells)), *_NOTES.splitlines())
    sections = (
        Section(
            "matrix",
            "Scores",
            (Paragraph(_LEAD), transfer_table(cells, metric), figure, counts),
        ),
        Section("notes", "Notes", (Items(notes),)),
    )
    studies, corpora = _name_sides(cells)
    generated = any(cell.generated for cell in cells)
    size = f"{len(studies)} x {len(corpora)}: studies x corpora"
    return format_markdown(Report("Transfer between corpora", size, generated, sections))


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
    with figure_style():
        size = (1.2 * len(corpora) + 1.9, 0.62 * len(studies) + 1.3)
        ax: Axes = Figure(figsize=size, layout="constrained").subplots()
        # Dark is good, for losses too.
        colors = SHARES if chosen.direction == "maximize" else SHARES.reversed()
        image = ax.imshow(values, cmap=colors, norm=shade, aspect="auto")
        for cell in cells:
            row, column = studies.index(cell.study), corpora.index(cell.corpus)
            score = found[cell.study, cell.corpus]
            text, dark = NONE, False
            if score is not None:
                people = count_words(cell.n_people, "person").replace("persons", "people")
                interval = format_interval(score.low, score.high)
                text = "\n".join(filter(None, (format_number(score.value), interval, people)))
                dark = sum(colors(shade(score.value))[:3]) < 1.5
            color = "white" if dark else "black"
            ax.text(column, row, text, ha="center", va="center", fontsize=7, color=color)
            if cell.kind == "out-of-fold":
                x = column + np.array([-0.48, 0.48, 0.48, -0.48, -0.48])
                y = row + np.array([-0.46, -0.46, 0.46, 0.46, -0.46])
                ax.plot(x, y, color="black", lw=1.2)
        names = [shorten(name) for name in corpora]
        ax.set_xticks(range(len(corpora)), names, parse_math=False, **TURNED)
        ax.set_yticks(range(len(studies)), [shorten(s) for s in studies], parse_math=False)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.set_xlabel("corpus; framed: out-of-fold", fontsize=7)
        ax.set_ylabel("study")
        assert ax.figure is not None
        ax.figure.colorbar(image, ax=ax, shrink=0.9, label=chosen.title)
    return ax
