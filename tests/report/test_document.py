"""Texts and cells that every section is made of."""

from types import SimpleNamespace

import numpy as np
import pytest

from toolkit.report.document import (
    Cell,
    Table,
    count_words,
    escape_markdown,
    format_interval,
    format_number,
    format_p,
    format_share,
    isolate,
    join_names,
)
from toolkit.report.facts import StudyFacts
from toolkit.report.figures import shorten
from toolkit.validation import Score


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (format_number(0.71249), "0.712"),
        (format_interval(0.65, 0.771), "[0.650, 0.771]"),
        (format_interval(None, None), ""),
        (format_p(0.00391), ".0039"),
        (format_p(1.0), "1"),
        (format_p(0.00001), "< .0001"),
        (format_share(3, 12), "3 (25 %)"),
        (format_share(0, 0), "0"),
        (isolate("anger"), "anger"),
        (isolate("\u05d0"), "\u2068\u05d0\u2069"),
        (join_names(["text", "audio", "visual"]), "text, audio and visual"),
        (count_words(1, "fold"), "1 fold"),
        (count_words(1336, "utterance"), "1,336 utterances"),
        (escape_markdown("a|b<i>"), r"a\|b\<i\>"),
        (shorten("contentment-and-relief-after-tension"), "contentment-and-r…"),
    ],
)
def test_numbers_and_names_are_written_for_readers(text, expected):
    assert text == expected


def test_two_classes_are_drawn_once():
    two, three = (
        StudyFacts.drawn_classes.fget(SimpleNamespace(classes=classes))
        for classes in (["low", "high"], ["low", "middle", "high"])
    )

    assert two == [1]
    assert three == [0, 1, 2]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, Cell("\N{EN DASH}")),
        ("text", Cell("text")),
        (Cell("a", 1.0), Cell("a", 1.0)),
        (True, Cell("yes", 1.0)),
        (np.False_, Cell("no", 0.0)),
        (1336, Cell("1,336", 1336.0)),
        (np.int64(3), Cell("3", 3.0)),
        (0.71249, Cell("0.712", 0.71249)),
        (
            Score("text", "uar", "all", "", 0.7, 0.6, 0.8, "jackknife", 9),
            Cell("0.700 [0.600, 0.800]", 0.7),
        ),
        (Score("text", "uar", "all", "", 0.7, None, None, "value", 9), Cell("0.700", 0.7)),
    ],
)
def test_a_value_becomes_a_cell_by_its_type(value, expected):
    table = Table.of("numbers", "", ["value"], [[value]])

    assert table.rows == ((expected,),)
