"""The page on the architecture names the files and functions that there are."""

import ast
import re
from collections import Counter
from pathlib import Path

import toolkit

PACKAGE = Path(toolkit.__file__).parent
PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
TEXT = PAGE.read_text(encoding="utf-8")
ROOMS = "|".join(sorted(face.parent.name for face in PACKAGE.glob("*/__init__.py")))


def list_files():
    """Paths of the package's modules; the faces of rooms are their headings."""
    paths = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}
    return {path for path in paths if not path.endswith("/__init__.py")}


def read_inventory():
    """Paths of the files that the page lists, room by room, in their order."""
    files = []
    for section in re.split(r"^### ", TEXT, flags=re.MULTILINE)[1:]:
        room = section[section.index("`toolkit/") + len("`toolkit/") :].partition("`")[0]
        files += [
            room + name for name in re.findall(r"^- `(\w+\.py)`: \S", section, re.MULTILINE)
        ]
    return files


def define_names(path):
    """Names that a module defines at its top level."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        for target in ast.walk(node) if isinstance(node, ast.Assign | ast.AnnAssign) else ():
            if isinstance(target, ast.Name) and isinstance(target.ctx, ast.Store):
                yield target.id


def test_every_module_is_listed_once():
    listed = read_inventory()

    assert [name for name, n in Counter(listed).items() if n > 1] == []
    assert sorted(list_files() - set(listed)) == [], "not on the page"
    assert sorted(set(listed) - list_files()) == [], "on the page, but not in the package"


def test_every_name_on_the_page_exists():
    named = re.findall(rf"`((?:{ROOMS})\.\w+)\.(\w+)`", TEXT)
    paths = {module: PACKAGE / f"{module.replace('.', '/')}.py" for module, _ in named}
    defined = {
        module: set(define_names(path)) if path.exists() else set()
        for module, path in paths.items()
    }

    assert len(named) > 40
    lacking = {f"{module}.{name}" for module, name in named if name not in defined[module]}
    assert sorted(lacking) == []


def test_every_file_on_the_page_exists():
    named = re.findall(rf"`((?:{ROOMS})/\w*(?:\.py)?)`", TEXT)

    assert named
    assert [path for path in named if not (PACKAGE / path).exists()] == []


def test_the_rooms_are_in_the_order_of_the_data():
    layers = re.search(r"`(study > [\s\S]+?)`", TEXT)[1].replace("\n", " ").split(" > ")

    rooms = [path.partition("/")[0] for path in read_inventory() if "/" in path]
    assert list(dict.fromkeys(rooms)) == list(reversed(layers))
