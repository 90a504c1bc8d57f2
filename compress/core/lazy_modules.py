"""Keras and TensorFlow, imported at first use.

Importing them takes seconds, which commands should not spend before they have checked their input.
Modules import them from here: `from compress.core.lazy_modules import keras, tf`.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras as keras
    import tensorflow as tf


class LazyModule(ModuleType):
    """Proxy for a module that imports it at the first access to an attribute."""

    def __getattr__(self, name: str) -> Any:
        value = getattr(importlib.import_module(self.__name__), name)
        setattr(self, name, value)  # each name is looked up once
        return value


if not TYPE_CHECKING:
    keras, tf = LazyModule("keras"), LazyModule("tensorflow")

__all__ = ["keras", "tf"]
