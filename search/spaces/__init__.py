"""Search spaces by name, one file each, and the user's own function as a space."""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any

from compress.core.errors import InputError, unknown_name
from compress.core.interpreter import resolve
from compress.core.lazy_modules import keras
from compress.data import Dataset
from search.plugins import SPACES
from search.spaces._base import DeclaredSpace, Space, head
from search.spaces.around import PREFIX, Around
from search.spaces.cnn import CNN
from search.spaces.mlp import MLP
from search.spaces.mobilenet import MobileNet
from search.spaces.resnet import ResNet

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

__all__ = [
    "Around",
    "CNN",
    "DeclaredSpace",
    "MLP",
    "MobileNet",
    "PythonSpace",
    "ResNet",
    "SPACES",
    "Space",
    "head",
    "space_for",
]


def space_for(name: str) -> Space:
    """Return the space that users call `name`.

    Args:
        name: Of `SPACES`; "around:model.keras": see `Around`; or "package.module:function":
            see `PythonSpace`.

    Raises:
        InputError: None of them; the message lists the choices. Or see the classes.
    """
    if name in SPACES:
        space: Space = SPACES[name]
        return space
    if name.startswith(PREFIX):
        return Around(name)
    if ":" in name:
        return PythonSpace(name)
    error = unknown_name("space", name, SPACES.names())
    raise InputError(
        f"{error} Or {PREFIX}model.keras, or your own build(trial, data): package.module:function."
    )


class PythonSpace(Space):
    """A space that is the user's function `build(trial, data) -> keras.Model`.

    The function asks `trial` (an Optuna trial) for whatever it wants to be searched, and
    returns an untrained Functional or Sequential model that takes `data.input_shape` and
    outputs `data.task.outputs` numbers (`search.spaces.head` makes such an end). Names of
    `search.study.optimizers` (optimizer, learning_rate.*, schedule, ...) are taken.

    If its module has an attribute `baseline`, a dictionary of choices or a function of the
    data set that returns one, these are tried first; choices that it leaves out are sampled.
    Without it the first trial is a sample like the others.

    Args:
        target: "package.module:function".

    Raises:
        InputError: The module cannot be imported, has no such function, or the function
            does not take (trial, data).
    """

    def __init__(self, target: str) -> None:
        self.name = target
        self._function = resolve(target, "Space")
        try:
            inspect.signature(self._function).bind(None, None)
        except TypeError:
            raise InputError(
                f"Space '{target}' must take (trial, data). "
                f"Received: a function of {inspect.signature(self._function)}."
            ) from None
        except ValueError:
            pass  # some callables have no signature to look at; the first trial will tell

    def check(self, data: Dataset) -> None:
        """Accept all data: only the function knows, and its error fails the trial."""

    def baseline(self, data: Dataset) -> dict[str, Any]:
        """Return the module's `baseline` for this data, {} without one.

        Raises:
            InputError: It is no dictionary with names for keys.
        """
        found = getattr(sys.modules[self.name.partition(":")[0]], "baseline", None)
        if found is None:
            return {}
        if callable(found):
            found = found(data)
        if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
            raise InputError(
                f"Space '{self.name}' must have as `baseline` a dictionary of choices, or a "
                f"function of the data set that returns one. Received: {found!r}."
            )
        return dict(found)

    def build(self, trial: BaseTrial, data: Dataset) -> keras.Model:
        """Call the function and check the model that it returns.

        Raises:
            InputError: No Keras model, or one that does not fit the data.
        """
        from compress.model.heads import check_head

        model = self._function(trial, data)
        if not isinstance(model, keras.Model):
            raise InputError(
                f"Space '{self.name}' must return a keras.Model. Received: {type(model).__name__}."
            )
        # Keras has no such attributes before the input's shape is known
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
