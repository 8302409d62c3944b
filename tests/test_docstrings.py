"""Every public name is documented, and the documentation fits its signature."""

import importlib
import inspect
import pkgutil

import pytest
from numpydoc.validate import validate

import toolkit

CODES = {"GL08", "SS03", "PR01", "PR02", "PR03", "PR10", "RT01", "RT03", "YD01"}


def public_names():
    """Names in the rooms' ``__all__``, and all that the rooms' files define in the open."""
    for module in pkgutil.walk_packages(toolkit.__path__, "toolkit."):
        if module.name.endswith("__main__"):
            continue
        imported = importlib.import_module(module.name)
        for name, value in vars(imported).items():
            mine = getattr(value, "__module__", None) == module.name
            if not name.startswith("_") and mine and callable(value):
                yield f"{module.name}.{name}"
                if inspect.isclass(value):
                    yield from (
                        f"{module.name}.{name}.{method}"
                        for method, function in vars(value).items()
                        if not method.startswith("_") and inspect.isfunction(function)
                    )


@pytest.mark.parametrize("name", sorted(set(public_names())))
def test_docstring_fits_the_signature(name):
    errors = [f"{code} {text}" for code, text in validate(name)["errors"] if code in CODES]

    assert errors == []


@pytest.mark.parametrize("room", [m.name for m in pkgutil.iter_modules(toolkit.__path__)])
def test_every_room_says_what_belongs_there(room):
    assert importlib.import_module(f"toolkit.{room}").__doc__
