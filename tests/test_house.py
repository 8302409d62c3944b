"""The house is tidy: files of one subject, one name per subject, imports one way."""

import ast
import tokenize
from collections import Counter, defaultdict
from pathlib import Path

import pytest

import toolkit

ROOT = Path(toolkit.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
MOST_LINES, MOST_CODE_LINES, MOST_MODULES = 600, 400, 105


def module_name(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


TREES = {module_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


def count_code(path):
    """Lines that hold code: no docstring, comment or blank."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    with path.open("rb") as file:
        tokens = list(tokenize.tokenize(file.readline))
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.ENCODING}
    skipped |= {tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines = {
        line
        for token in tokens
        if token.type not in skipped
        for line in range(token.start[0], token.end[0] + 1)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            lines -= set(range(node.lineno, node.end_lineno + 1))
    return len(lines)


def imports_of(name, *, at_start=False):
    """Modules of the package that a module imports, anywhere or only when it is loaded."""
    nodes = TREES[name].body if at_start else list(ast.walk(TREES[name]))
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                target = whole if whole in TREES else node.module
                if target in TREES and target != name:
                    yield target


def test_a_file_is_read_in_one_sitting():
    long = {
        path.relative_to(ROOT).as_posix(): (n_lines, n_code)
        for path in FILES
        if (n_lines := len(path.read_text(encoding="utf-8").splitlines())) > MOST_LINES
        or (n_code := count_code(path)) > MOST_CODE_LINES
    }

    assert long == {}


def test_there_are_few_modules():
    assert len(FILES) <= MOST_MODULES


def test_no_two_rooms_have_a_file_of_one_name():
    stems = Counter(p.stem for p in FILES if not p.stem.startswith("__"))

    assert [stem for stem, n in stems.items() if n > 1] == []


def test_modules_import_one_another_in_one_direction():
    edges = {name: set(imports_of(name)) - {"toolkit"} for name in TREES}
    faces = {name for name in TREES if f"{name.replace('.', '/')}" and name.count(".") == 1}
    # A room's face imports its files; a file that imports its own face would go round.
    seen, path = set(), []

    def visit(name):
        if name in path:
            pytest.fail(" -> ".join([*path[path.index(name) :], name]))
        if name in seen:
            return
        path.append(name)
        for other in sorted(edges[name]):
            visit(other)
        path.pop()
        seen.add(name)

    for name in TREES:
        visit(name)
    assert faces


def test_public_names_serve_another_module():
    uses = defaultdict(set)
    for name in TREES:
        for node in ast.walk(TREES[name]):
            if isinstance(node, ast.ImportFrom) and node.module in TREES:
                for alias in node.names:
                    uses[node.module, alias.name].add(name)
    assert uses
