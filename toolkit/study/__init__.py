"""One command: configuration, output folder, execution and the command line.

``toolkit.study(data, ...)`` is :func:`toolkit.study.runner.study`. Import the rest from the
files themselves (``toolkit.study.config``): this face stays empty so that ``--help`` and a
refused option answer at once.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    """The package, which can be called whatever the order of imports."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Run a study: see :func:`toolkit.study.runner.study`."""
        return self.__wrapped__(*args, **options)

    @property
    def __wrapped__(self) -> Any:
        # By this name `inspect` and editors find the signature, and `help` the parameters.
        return import_module("toolkit.study.runner").study


# The function and the package have one name: an import of the second would hide the first.
sys.modules[__name__].__class__ = _Room
