"""Every public name is documented, and the documentation fits its signature."""

import importlib
import inspect
import pkgutil

import pytest
from numpydoc.validate import validate

import toolkit

CODES = {"GL08", "SS03", "PR01", "PR02", "PR03", "PR10", "RT01", "RT03", "YD01"}
#: Whose parameters are documented elsewhere, and where.
ELSEWHERE = {
    "toolkit.study.config.StudyConfig": "a description a field, and docs/options.md",
    "toolkit.study.options.Parser": "they are argparse's",
    "toolkit.models.spaces.Space": "a protocol: its call has them",
}
ROOMS = [m.name for m in pkgutil.iter_modules(toolkit.__path__) if m.ispkg]


def public_names(room):
    """Names that a room hands out; the study room hands out what its files define."""
    package = importlib.import_module(f"toolkit.{room}")
    if hasattr(package, "__all__"):
        values = {name: getattr(package, name) for name in package.__all__}
    else:
        modules = [
            importlib.import_module(f"{package.__name__}.{m.name}")
            for m in pkgutil.iter_modules(package.__path__)
            if m.name != "__main__"
        ]
        values = {
            name: value
            for module in modules
            for name, value in vars(module).items()
            if (inspect.isfunction(value) or inspect.isclass(value))
            and value.__module__ == module.__name__
            and not name.startswith("_")
        }
    for name, value in values.items():
        if inspect.isclass(value) or inspect.isfunction(value):
            yield f"{value.__module__}.{name}"
        if inspect.isclass(value):
            yield from (f"{value.__module__}.{name}.{method}" for method in own_methods(value))


def own_methods(kind):
    """Names of the public methods and properties that a class itself defines."""
    for name, value in vars(kind).items():
        if not name.startswith("_") and (
            inspect.isfunction(value)
            or isinstance(value, property | classmethod | staticmethod)
        ):
            yield name


@pytest.mark.parametrize("room", ROOMS)
def test_docstrings_fit_their_signatures(room):
    errors = {
        name: wrong
        for name in public_names(room)
        if name not in ELSEWHERE
        and (wrong := [text for code, text in validate(name)["errors"] if code in CODES])
    }

    assert errors == {}


def test_what_is_handed_out_at_the_top_is_documented():
    values = {name: getattr(toolkit, name) for name in toolkit.__all__}
    homes = {f"{value.__module__}.{name}" for name, value in values.items()}

    documented = {name for room in ROOMS for name in public_names(room)}

    assert homes <= documented


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_says_what_belongs_there(room):
    assert importlib.import_module(f"toolkit.{room}").__doc__
