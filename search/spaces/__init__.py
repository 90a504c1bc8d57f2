"""Search spaces by name, one file each, and user-defined functions as spaces."""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any

from compress.core.errors import (
    InputError,
    build_removed_name_error,
    build_unknown_name_error,
)
from compress.core.lazy_modules import keras
from compress.core.module_loading import import_function
from compress.data import Dataset
from search.plugins import SPACES
from search.spaces._base import DeclaredSpace, Space, head

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

__all__ = [
    "DeclaredSpace",
    "PythonSpace",
    "SPACES",
    "Space",
    "head",
    "resolve_space",
]


def resolve_space(name: str) -> Space:
    """Return the space with a name.

    Args:
        name: A name in `SPACES`, or "package.module:function", see `PythonSpace`.

    Raises:
        InputError: The name is none of these (the message lists the choices), or see the classes.
    """
    if name in SPACES:
        space: Space = SPACES[name]
        return space
    if name.startswith("around:"):
        raise build_removed_name_error(
            "space",
            name,
            "The front around a model was no better than that of paretune shrink, which goes on to "
            "smaller models. Use paretune shrink MODEL, without a goal.",
        )
    if ":" in name:
        return PythonSpace(name)
    error = build_unknown_name_error("space", name, SPACES.names())
    raise InputError(f"{error} Or your own build(trial, data): package.module:function.")


class PythonSpace(Space):
    """A space defined by a user's function `build(trial, data) -> keras.Model`.

    The function samples its parameters from `trial` (an Optuna trial) and returns an untrained
    Functional or Sequential model with input shape `data.input_shape` and `data.task.outputs`
    outputs (`search.spaces.head` creates suitable final layers). The parameter names of
    `search.study.optimizers` (optimizer, learning_rate.*, schedule, ...) are reserved.

    If the function's module has an attribute `baseline`, a dictionary of choices or a function that
    returns one for a data set, these choices are tried first; missing choices are sampled.
    Otherwise the first trial is sampled like the others.

    Args:
        target: "package.module:function".

    Raises:
        InputError: The module cannot be imported or has no such function, or the function
            does not accept (trial, data).
    """

    def __init__(self, target: str) -> None:
        self.name = target
        self._function = import_function(target, "Space")
        try:
            inspect.signature(self._function).bind(None, None)
        except TypeError:
            raise InputError(
                f"Space '{target}' must take (trial, data). "
                f"Received: a function of {inspect.signature(self._function)}."
            ) from None
        except ValueError:
            pass  # some callables have no signature; a wrong one fails the first trial

    def check(self, data: Dataset) -> None:
        """Accept all data, because only the function can check them; its errors fail trials."""

    def baseline(self, data: Dataset) -> dict[str, Any]:
        """Return the module's `baseline` for this data, {} without one.

        Raises:
            InputError: The baseline is not a dictionary with names as keys.
        """
        choices = getattr(sys.modules[self.name.partition(":")[0]], "baseline", None)
        if choices is None:
            return {}
        if callable(choices):
            choices = choices(data)
        if not isinstance(choices, dict) or not all(isinstance(name, str) for name in choices):
            raise InputError(
                f"Space '{self.name}' must have as `baseline` a dictionary of choices, or a "
                f"function of the data set that returns one. Received: {choices!r}."
            )
        return dict(choices)

    def build(self, trial: BaseTrial, data: Dataset) -> keras.Model:
        """Call the function and return its model after checking it.

        Raises:
            InputError: The function returned no Keras model, or one that does not fit the data.
        """
        from compress.model.heads import check_head

        model = self._function(trial, data)
        if not isinstance(model, keras.Model):
            raise InputError(
                f"Space '{self.name}' must return a keras.Model. Received: {type(model).__name__}."
            )
        # models have no inputs and outputs before their input shape is known
        if not (getattr(model, "inputs", None) and getattr(model, "outputs", None)):
            raise InputError(
                f"Space '{self.name}' must return a Functional model, or a Sequential one that "
                f"begins with keras.Input. Received: {type(model).__name__} '{model.name}' "
                "without inputs."
            )
        try:
            check_head(model, data)
        except InputError as error:
            raise InputError(f"Space '{self.name}' must fit the data. {error}") from None
        return model
