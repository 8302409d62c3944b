"""Every name that a room hands out is documented, and the documentation fits its signature."""

import importlib
import inspect
import pkgutil

import pytest
from numpydoc.validate import validate

import toolkit

CODES = {"GL08", "SS03", "PR01", "PR02", "PR03", "PR10", "RT01", "RT03", "YD01"}
#: Names whose parameters are documented elsewhere, and where.
ELSEWHERE = {
    "toolkit.study.config.StudyConfig": "one description per field, and docs/options.md",
    "toolkit.models.spaces.Space": "a protocol: its call has them",
}
ROOMS = [m.name for m in pkgutil.iter_modules(toolkit.__path__) if m.ispkg]


def handed_out(package):
    """Classes and functions of `__all__`."""
    for name in getattr(package, "__all__", ()):
        value = getattr(package, name)
        defined = inspect.isclass(value) or inspect.isfunction(value)
        if defined and value.__module__.startswith(package.__name__):
            yield f"{value.__module__}.{value.__name__}", value


def documented_names(module):
    for name, value in handed_out(importlib.import_module(f"toolkit.{module}")):
        yield name
        if inspect.isclass(value):
            yield from (f"{name}.{method}" for method in own_methods(value))


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
        for name in documented_names(room)
        if name not in ELSEWHERE
        and (wrong := [text for code, text in validate(name)["errors"] if code in CODES])
    }

    assert errors == {}


def test_names_of_the_package_are_documented():
    # `toolkit.study` is a package that runs a function when it is called.
    values = {name: inspect.unwrap(getattr(toolkit, name)) for name in toolkit.__all__}

    errors = {
        name: wrong
        for name, value in values.items()
        if (path := f"{value.__module__}.{name}") not in ELSEWHERE
        and (wrong := [text for code, text in validate(path)["errors"] if code in CODES])
    }

    assert errors == {}


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_says_what_belongs_there(room):
    assert importlib.import_module(f"toolkit.{room}").__doc__
