"""The pages are plain prose that a Markdown engine renders as it is meant.

``CONTRIBUTING.md`` has the rules; each check takes the text of a page and gives its faults.
"""

import re
from itertools import pairwise
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    {
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "studies").rglob("README.md"),
        *(ROOT / "outputs").glob("README.md"),
    }
)
#: Tables that are compared with the help of the command line, whose words another test checks.
COPIED = ("option", "command")
MOST_WORDS = 25

#: Words of no glossary, values that act like people, and "a" where "per" is meant.
WORDS = re.compile(
    r"\b(said|told|whoever|nobody|somebody|mend(s|ed)?|begun|reckon(s|ed)?|flatters?|surer)\b"
    r"|\b(rooms?|verdicts?|voters?|worth|raced|racing|as ever|nothing but)\b"
    r"|\bof scikit-learn's\b|\bderive[sd]? again\b|\bnothing to see\b"
    r"|\b(says?|tells?|hears?|listens?|goes by)"
    r" (it|more|less|the same|as|that|how|which|what)\b"
    r"|\b(person|people|persons|speaker|actor)s? never (seen|heard)\b"
    r"|\bstands?\b[^.]{0,20}\b(beside|against)\b"
    r"|\b(rows?|files?|features?|votes?|trials?|threads?|processes|fits?|folds?|one|once|bits?"
    r"|frames?|seconds?|statistics|probabilities|megabytes|MB|kB) (a|an) (utterance|modality"
    r"|system|folder|fold|speaker|person|frame|row|second|file|class|trial|unit|worker|process"
    r"|seed|dimension|line|machine|core|study|row)\b",
    re.IGNORECASE,
)
STARTS = re.compile(r"(What|Who|Whose|Where|Which|Of|As to|So|That)\b")


def render(text):
    return MarkdownIt("commonmark").enable("table").parse(text)


def read_blocks(text):
    """Yield line and plain text of every paragraph, heading, list item and table cell."""
    header, copied = None, False
    for token in render(text):
        if token.type == "table_open":
            header, copied = None, False
        if token.type == "inline" and not copied:
            line = token.map[0] + 1 if token.map else 0
            content = "".join(
                {"softbreak": " ", "hardbreak": " ", "code_inline": "`Code`"}.get(
                    part.type, part.content
                )
                for part in token.children
            )
            if header is None:
                header = content
            yield line, content
        if token.type == "thead_close":
            copied = header in COPIED
        if token.type == "table_close":
            header, copied = "", False


def check_words(text):
    return [
        f"line {line}: {match[0]}"
        for line, content in read_blocks(text)
        for match in WORDS.finditer(content)
    ]


def split_sentences(content):
    return re.split(r"(?<=[.!?])[)\"*]*\s+(?=[\W_]*[A-Z])", content)


def check_starts(text):
    return [
        f"line {line}: {sentence[:60]}"
        for line, content in read_blocks(text)
        for sentence in split_sentences(content)
        if STARTS.match(sentence.lstrip("*_ (")) and not sentence.rstrip("*_) ").endswith("?")
    ]


def check_lengths(text):
    """Find long sentences; a colon or semicolon ends one, and brackets are left out."""
    faults = []
    for line, content in read_blocks(text):
        for sentence in split_sentences(re.sub(r"\([^()]*\)|\[[^\]]*\]", "", content)):
            for clause in re.split(r"[:;]\s", sentence):
                n_words = len(re.findall(r"[^\W\d_]{2,}[\w'-]*|`Code`", clause))
                if n_words > MOST_WORDS:
                    faults.append(f"line {line}: {n_words} words: {clause[:60]}")
    return faults


def check_quotes(text):
    """Find block quotes, which a line with ``>>>`` outside of a code block becomes."""
    return [
        f"line {token.map[0] + 1}: quotation"
        for token in render(text)
        if token.type == "blockquote_open" and not token.level
    ]


def count_cells(row):
    return len(re.split(r"(?<!\\)\|", row.strip().removeprefix("|").removesuffix("|")))


def check_tables(text):
    """Find tables that stay text, and rows whose surplus cells are dropped silently."""
    faults = [
        f"line {line}: no table: {content[:60]}"
        for line, content in read_blocks(text)
        if re.search(r"^\||\|\s*$|\|[ :-]*-{3}", content)
    ]
    lines = text.splitlines()
    for token in render(text):
        if token.type == "table_open":
            first, last = token.map
            faults += [
                f"line {n + 1}: {count_cells(lines[n])} cells, not {count_cells(lines[first])}"
                for n in range(first, last)
                if count_cells(lines[n]) != count_cells(lines[first])
            ]
    return faults


def check_tags(text):
    """Find raw HTML, such as a placeholder in angle brackets that a browser would swallow."""
    return [
        f"HTML: {part.content.strip()[:60]}"
        for token in render(text)
        for part in (token, *(token.children or ()))
        if part.type in {"html_block", "html_inline"}
    ]


CHECKS = [check_words, check_starts, check_lengths, check_quotes, check_tables, check_tags]


def name(page):
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_page_keeps_to_the_rule(check, page):
    assert check(page.read_text(encoding="utf-8")) == []


def list_anchors(text):
    """List the anchors of a page's headings as GitHub makes them."""
    anchors = []
    tokens = render(text)
    for token, inline in pairwise(tokens):
        if token.type == "heading_open":
            plain = "".join(part.content for part in inline.children)
            anchor = re.sub(r"[^\w\- ]", "", plain.lower()).strip().replace(" ", "-")
            n_before = sum(anchor == a or a.startswith(f"{anchor}-") for a in anchors)
            anchors.append(f"{anchor}-{n_before}" if anchor in anchors else anchor)
    return anchors


def list_links(text):
    for token in render(text):
        for part in token.children or ():
            target = part.attrs.get("href") or part.attrs.get("src")
            if target:
                yield target


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_relative_link_and_anchor_exists(page):
    faults = []
    for target in list_links(page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        found = page.parent / path if path else page
        if not found.exists():
            faults.append(target)
        elif anchor and anchor not in list_anchors(found.read_text(encoding="utf-8")):
            faults.append(f"{target}: no such heading")

    assert faults == []


#: Texts with one fault each, and a text without any.
PLAIN = """# Plain

The table has one row per utterance. What does it hold? Numbers (and `code | pipes`).

| option | |
|---|---|
| `data` | what is told by whoever |

```pycon
>>> 1 + 1
2
```
"""
FAULTS = [
    (check_words, "It was told."),
    (check_words, "There is one row an utterance."),
    (check_words, "The label of a person never\nseen."),
    (check_words, "| a | b |\n|---|---|\n| c | whoever |"),
    (check_starts, "It runs. What it finds is written."),
    (check_starts, "**So** it runs."),
    (check_lengths, "word " * 26 + "."),
    (check_quotes, "Text.\n\n>>> 1 + 1\n2"),
    (check_tables, "Text.\n| a | b |\n| c | d |"),
    (check_tables, "| a | b |\n|---|---|\n| `c | d` | e |"),
    (check_tags, "Write to outputs/<study>/ now."),
]


@pytest.mark.parametrize("check", CHECKS)
def test_plain_prose_has_no_fault(check):
    assert check(PLAIN) == []


@pytest.mark.parametrize(("check", "text"), FAULTS)
def test_a_planted_fault_is_found(check, text):
    assert len(check(text)) == 1


def test_every_check_has_a_planted_fault():
    assert {check for check, _ in FAULTS} == set(CHECKS)
