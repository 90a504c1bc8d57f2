"""Keras and TensorFlow, imported at their first use.

Importing them takes seconds, which a command that refuses bad input must not. So modules take them
from here: `from compress.core.lazy_modules import keras, tf`.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras as keras
    import tensorflow as tf


class LazyModule(ModuleType):
    """Stand-in for a module that imports it at the first access to an attribute."""

    def __getattr__(self, name: str) -> Any:
        value = getattr(importlib.import_module(self.__name__), name)
        setattr(self, name, value)  # so that it is asked once a name
        return value


if not TYPE_CHECKING:
    keras, tf = LazyModule("keras"), LazyModule("tensorflow")

__all__ = ["keras", "tf"]
