"""The page and its three siblings: the same numbers, names that stay text, no requests."""

import dataclasses
import re
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest

from toolkit.report import (
    draw_figures,
    format_markdown,
    format_page,
    render_figure,
    summarise_study,
)
from toolkit.report.document import (
    Cell,
    Figure,
    Matrix,
    Section,
    Table,
    _escape_tex,
)


class Reader(HTMLParser):
    """What a browser would see: elements with their attributes, and texts."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.elements, self.texts, self.open = [], [], []
        self.cells, self.cell = [], None

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.open.append(tag)
        if tag in {"td", "th"}:
            self.cell = []

    def handle_endtag(self, tag):
        if tag in {"td", "th"}:
            self.cells.append("".join(self.cell).strip())
            self.cell = None

    def handle_data(self, data):
        if self.open[-1:] != ["script"] and self.open[-1:] != ["style"]:
            self.texts.append(data)
        if self.cell is not None:
            self.cell.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def read(page):
    reader = Reader()
    reader.feed(page)
    return reader


def render(facts, drawn=None):
    figures = drawn or {stem: "" for stem, _ in draw_figures(facts)}
    return format_page(summarise_study(facts), figures)


@pytest.fixture(scope="module")
def drawn(facts):
    return {stem: render_figure(ax, "svg").decode() for stem, ax in draw_figures(facts)}


@pytest.fixture(scope="module")
def page(facts, drawn):
    return render(facts, drawn)


@pytest.fixture(scope="module")
def hostile_page(hostile):
    return render(hostile)


def tables(facts):
    return {
        part.name: part for part in summarise_study(facts).parts() if isinstance(part, Table)
    }


def test_the_page_is_one_file_that_asks_for_nothing(page):
    reader = read(page)

    addresses = [
        value
        for _, attributes in reader.elements
        for name, value in attributes.items()
        if name in {"src", "href", "action", "data", "srcset"}
    ]
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert "url(" not in page
    assert "@import" not in page
    assert "plotly" not in page.lower()
    policy = next(a["content"] for a in reader.all("meta") if "http-equiv" in a)
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_every_section_of_the_contract_is_there_and_linked(page):
    reader = read(page)

    named = [attributes["id"] for attributes in reader.all("section")]
    assert named == [
        "summary",
        "caveats",
        "scores",
        "comparisons",
        "confusion",
        "speakers",
        "calibration",
        "search",
        "data",
        "protocol",
        "audit",
    ]
    links = [attributes["href"] for attributes in reader.all("a")]
    assert links == ["#summary", *(f"#{name}" for name in named)]


def test_tables_have_captions_scopes_and_buttons_to_sort_by(page):
    reader = read(page)

    n_tables = len(reader.all("table"))
    assert n_tables == len(reader.all("caption")) > 10
    assert {attributes["scope"] for attributes in reader.all("th")} == {"row", "col"}
    sortable = [head for head in reader.all("th") if "aria-sort" in head]
    assert len(sortable) == len(reader.all("button"))
    assert all(
        a["tabindex"] == "0" for a in reader.all("div") if "scroll" in a.get("class", "")
    )
    ids = [a["id"] for _, a in reader.elements if "id" in a]
    assert len(ids) == len(set(ids))


def test_pictures_are_told_in_words_made_of_their_numbers(facts, page):
    alts = [attributes["alt"] for attributes in read(page).all("img")]

    assert len(alts) == 6
    for system in facts.systems:
        assert f"{system} {facts.score(system).value:.3f}" in alts[0]
    assert all(len(alt) > 40 for alt in alts)


def test_every_number_of_the_score_table_is_in_all_three_files(facts, page):
    report, table = summarise_study(facts), tables(facts)["scores"]
    texts = [cell.text for row in table.rows for cell in row]

    cells = read(page).cells
    markdown = format_markdown(report).replace("\\", "").replace("**", "")
    tex = table.format_tex()

    for text in texts:
        assert text in cells
        assert f"| {text} " in markdown
    for row in table.rows:
        for cell in row[1:-1]:
            value, _, ends = re.sub(r"\b0\.", ".", cell.text).partition(" ")
            assert f"& \\textbf{{{value}}} " in tex if cell.best else f"& {value} " in tex
            ends = ends.replace(", ", r",\,")
            assert f"{{\\scriptsize {{[}}{ends[1:]}}}" in tex


def test_counts_and_row_shares_stand_in_the_confusion_cells(facts, page):
    matrix = next(
        part
        for part in summarise_study(facts).parts()
        if isinstance(part, Matrix) and part.name == "confusion-text"
    )
    cells = read(page).cells

    for row in matrix.counts.tolist():
        for count in row:
            assert f"{count} {round(100 * count / sum(row))} %" in cells


def test_the_same_study_is_the_same_bytes(facts, drawn, page):
    again = {stem: render_figure(ax, "svg").decode() for stem, ax in draw_figures(facts)}

    assert again == drawn
    assert render(facts, again) == page


def test_hostile_names_stay_text_on_the_page(hostile, hostile_page):
    reader = read(hostile_page)

    assert len(reader.all("script")) == 1
    assert not reader.all("b")
    assert all(not name.startswith("on") for _, a in reader.elements for name in a)
    for name in hostile.classes:
        assert " ".join(name.split()) in {" ".join(cell.split()) for cell in reader.cells}
    for speaker in hostile.speakers:
        assert speaker.strip() in reader.cells


def test_hostile_names_stay_text_in_figures(hostile):
    for _, ax in draw_figures(hostile):
        elements = list(ET.fromstring(render_figure(ax, "svg")).iter())
        tags = {element.tag.rpartition("}")[2] for element in elements}
        assert not tags & {"script", "b", "a", "foreignObject", "set", "animate"}
        names = {name.rpartition("}")[2] for e in elements for name in e.attrib}
        assert not {name for name in names if name.startswith("on")}
        addresses = [v for e in elements for n, v in e.attrib.items() if n.endswith("href")]
        assert all(a.startswith(("#", "data:image/png")) for a in addresses)


def test_hostile_names_stay_text_in_markdown(hostile):
    text = format_markdown(summarise_study(hostile))

    assert not re.search(r"(?<!\\)<", text)
    widths = {
        len(re.findall(r"(?<!\\)\|", line))
        for line in text.split("\n")
        if line.startswith("| audio") and "alert" in line
    }
    assert widths == {7}


@pytest.mark.parametrize("mark", list("\\&%$#_{}~^<>\"|'`"))
def test_no_mark_of_a_name_is_read_as_latex(mark):
    escaped = _escape_tex(f"a{mark}b")

    assert escaped != f"a{mark}b"
    assert re.fullmatch(r"a(\\text[a-z]+\{\}|\\[&%$#_{}])b", escaped)


def test_hostile_names_do_not_break_rows_of_latex(hostile):
    table = Table.of(
        "t", "", ["class", "F1"], [[name, k / 10] for k, name in enumerate(hostile.classes)]
    )

    tex = table.format_tex()

    body = tex.split("\\midrule\n")[1].split("\\bottomrule")[0].splitlines()
    assert len(body) == len(hostile.classes)
    for line in body:
        assert len(re.findall(r"(?<!\\)&", line)) == 1
        assert line.endswith(" \\\\")


def test_the_table_of_a_paper_fits_one_column(facts):
    """Widths of Computer Modern at 8 and 7 points; a column of article is 229.5 points."""
    digit, mark, letter, title = {8: 4.25, 7: 3.98}, {8: 2.36, 7: 2.26}, 4.0, 4.6
    gap = 2 * 2.0
    tex = tables(facts)["scores"].format_tex()
    rows = [line.split(" & ") for line in tex.split("toprule")[1].splitlines() if " & " in line]

    def width(cell, place):
        size = 7 if "scriptsize" in cell else 8
        text = re.sub(r"\\[a-z]+ ?|[{}]|\\\\|\\,", "", cell).strip()
        if place == 0 or text[:1].isalpha():
            return len(text) * (letter if place == 0 else title)
        n_digits = sum(mark.isdigit() for mark in text)
        return n_digits * digit[size] + (len(text) - n_digits) * mark[size] + 1.2

    widths = [max(width(row[k], k) for row in rows) for k in range(len(rows[0]))]

    assert "resizebox" not in tex
    assert len(widths) == 5
    assert sum(widths) + gap * 4 < 229.5


def test_the_best_of_each_column_is_bold_and_losses_are_best_where_lowest(facts):
    table = tables(facts)["scores"]
    systems = [row[0].text for row in table.rows]

    for column, name in enumerate(("f1_micro", "f1_macro", "uar", "log_loss"), start=1):
        values = [facts.score(system, name).value for system in systems]
        best = min(values) if name == "log_loss" else max(values)
        assert [row[column].best for row in table.rows] == [v == best for v in values]
    assert sum(line.count("textbf") for line in table.format_tex().splitlines()) >= 4


def test_the_metrics_of_the_table_are_those_that_were_chosen(facts):
    options = dict(facts.options) | {"table_metrics": ("mcc", "uar")}

    made = tables(dataclasses.replace(facts, options=options))

    assert made["scores"].header == ("system", "F1-micro", "MCC", "UAR", "n")
    assert {*made["further"].header} >= {"F1-macro", "Log-loss"}
    assert not {*made["further"].header} & {"F1-micro", "MCC", "UAR"}


def test_rows_of_latex_may_begin_with_a_bracket_and_dashes_stay_apart():
    assert _escape_tex("[0.1, 0.2]") == "{[}0.1, 0.2]"
    assert _escape_tex("--outer") == "{-}{-}outer"


def test_a_section_made_elsewhere_needs_nothing_but_its_parts(facts, drawn):
    table = Table.of("shares", "Shares.", ["modality", "share"], [["text", Cell("0.7", 0.7)]])
    figure = Figure("shares", "Drawn shares.", "text 0.7")
    section = Section("explanation", "Explanation", (table, figure))
    report = summarise_study(facts, [section])

    page = format_page(report, drawn | {"shares": "<svg/>"})
    names = [section.name for section in report.sections]

    assert names[-4:] == ["explanation", "data", "protocol", "audit"]
    assert 'id="table-shares"' in page
    assert "| text | 0.7 |" in format_markdown(report)


def test_a_figure_that_was_not_drawn_is_an_error(facts):
    with pytest.raises(KeyError, match="scores"):
        format_page(summarise_study(facts), {})


def test_a_study_without_fusion_sessions_or_searches_has_its_page(make_facts):
    facts = make_facts(skills=(("text", 0.5),), fused=(), sessions=False)
    facts = dataclasses.replace(facts, searches={}, params={})

    named = [attributes["id"] for attributes in read(render(facts)).all("section")]

    assert "search" not in named
    assert "fusion" not in tables(facts)
    assert "95 %, sessions" not in tables(facts)["spread"].header


def test_a_study_of_one_split_has_its_page(make_facts):
    facts = make_facts(outer="split", one_fold=True)

    cells = read(render(facts)).cells
    text = format_markdown(summarise_study(facts))

    place = tables(facts)["spread"].header.index("SD over folds")
    assert {row[place].text for row in tables(facts)["spread"].rows} == {"\N{EN DASH}"}
    assert {row[-1].text for row in tables(facts)["comparisons"].rows} == {"\N{EN DASH}"}
    assert "There is a single fold" in text
    assert "The split that comes with the data was used" in text
    assert "SD over folds" in cells


def test_sessions_have_an_interval_of_their_own(facts):
    table = tables(facts)["spread"]
    place = table.header.index("95 %, sessions")

    score = facts.score("text", kind="session jackknife t")
    row = next(row for row in table.rows if row[0].text == "text")
    assert row[place].text == f"[{score.low:.3f}, {score.high:.3f}]"
    assert row[place].text != row[place - 1].text
