"""Loading and saving Keras models."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from compress.core.arguments import check_arguments
from compress.core.atomic_files import replacing
from compress.core.errors import InputError
from compress.core.lazy_modules import keras
from compress.model import keras2_files
from compress.model.internals import is_graph, layers_inside, own_variables
from compress.model.kinds import check_model_file
from compress.model.layers import is_keras
from compress.model.rebuild import as_graph, needs_leave, stand_ins, why_not_rebuildable

LOG = logging.getLogger("paretune")


def as_model(model: keras.Model | str | Path) -> keras.Model:
    """Return a model that is given as it is, or as the path of its file.

    Args:
        model: A Keras model, which is returned as it is, or what `load_model` takes.

    Raises:
        InputError: It is neither, or the file cannot be read.
    """
    if isinstance(model, (str, Path)):
        return load_model(model)

    if isinstance(model, keras.Model):
        return model
    kind = f"{type(model).__module__.partition('.')[0]}.{type(model).__name__}"
    remedy = (
        " Save it with model.save('model.h5') and give that path: Keras 3 reads it."
        if any(base.__module__.startswith("tf_keras") for base in type(model).__mro__)
        else ""
    )
    raise InputError(
        f"model must be a Keras model or the path of its file. Received: {kind}.{remedy}"
    )


@check_arguments()
def load_model(path: str | Path) -> keras.Model:
    """Load a model from a `.keras` or `.h5` file, without its training state.

    Files of Keras 2 are read too, where Keras 3 has their layers
    (see `compress.model.keras2_files`).
    Nothing in the file is executed: Lambda layers with Python code are refused, as
    Keras's safe mode does.

    Args:
        path: The file.

    Returns:
        The model, not compiled; of a class of the user's own as a graph, where it can be traced.

    Raises:
        InputError: No such file, another suffix, or Keras 3 cannot read it; the message
            says which layer and why, or carries Keras's reason. Or what is read cannot be
            used: a Sequential without inputs, inputs of no numbers, weights that are NaN,
            negative variances.

    Example:
        >>> load_model(folder / "model.keras").count_params()
        131
    """
    path = Path(path)
    check_model_file(path)

    try:
        with keras2_files.readable(path) as file:
            model = _read(file)
    except Exception as error:  # keras raises many kinds here, from zipfile to TypeError
        raise keras2_files.explain_unreadable(path, error) from None
    _check_inputs(model, path)
    _check_weights(model, path)
    # a class of the user's own is wanted for what it answers; one that cannot be traced stays
    with suppress(InputError):
        return as_graph(model)
    return model


def _read(file: Path) -> keras.Model:
    """Read a file as Keras does, or else with layers of others made of a part of their configs."""
    try:
        return keras.saving.load_model(file, compile=False)
    except Exception:
        # what was wrong at first is told, whatever is wrong then
        with suppress(Exception), keras.saving.custom_object_scope(stand_ins(file)):
            return keras.saving.load_model(file, compile=False)
        raise


def _check_inputs(model: keras.Model, path: Path) -> None:
    """Refuse models that nothing can be fed to."""
    if isinstance(model, keras.Sequential) and not model.built:
        raise InputError(
            f"Model '{path}' must have inputs. Received: a Sequential that was not built. Begin "
            "it with keras.Input(shape) and save it again."
        )
    for tensor in keras.tree.flatten(getattr(model, "inputs", None) or []):
        if 0 in tensor.shape:
            raise InputError(
                f"Inputs of model '{path}' must hold at least one number. Received: shape "
                f"{tuple(tensor.shape)}."
            )


def _check_weights(model: keras.Model, path: Path) -> None:
    """Refuse weights that turn every output into NaN, by the name of the layer."""
    for layer in layers_inside(model):
        if layer.variables and layer is not model:
            for variable in own_variables(layer):
                _check_variable(variable, layer.name, path)


def _check_variable(variable: Any, layer: str, path: Path) -> None:
    values = np.asarray(variable)
    if values.dtype.kind not in "fV":
        return
    values = values.astype(np.float32)  # bfloat16 is no type of NumPy's
    if np.isnan(values).any():
        raise InputError(
            f"Weights of model '{path}' must be numbers. Received: NaN in '{variable.name}' of "
            f"layer '{layer}'. Its training diverged, or the file is damaged."
        )
    if variable.name in ("moving_variance", "variance") and values.min(initial=0.0) < 0:
        raise InputError(
            f"Variances of model '{path}' must be at least 0. Received: {values.min():g} in "
            f"'{variable.name}' of layer '{layer}', whose outputs are NaN then."
        )


def save_model(model: keras.Model, path: Path) -> None:
    """Save a model as a `.keras` file in one atomic step.

    Args:
        model: Any Keras model.
        path: Ends in `.keras`.

    Raises:
        InputError: The file could not be loaded again: the config of a layer does not make it.
    """
    check_saveable(model)
    with replacing(path) as temporary:
        model.save(temporary)


def check_saveable(layer: keras.layers.Layer) -> None:
    """Check that a model comes back from its file; warns where a config loses something.

    Args:
        layer: A model; of a graph each layer is checked.

    Raises:
        InputError: The config of a layer does not make it again.
    """
    if isinstance(layer, keras.Model) and is_graph(layer):
        for part in layers_inside(layer, include_self=False, nested=False):
            check_saveable(part)
        return
    failure = why_not_rebuildable(layer, attributes=False)
    if failure:
        raise InputError(
            f"Layer '{layer.name}' ({type(layer).__name__}) must be rebuildable from its config to "
            f"be saved in a .keras file. Received: {failure}. Implement get_config() and "
            "from_config(), or keep the weights with save_weights()."
        )
    if not is_keras(layer) and needs_leave(layer):
        LOG.warning(
            "layer '%s' (%s) puts into its config what its constructor does not take: "
            "paretune.load_model reads the file, Keras alone does not",
            layer.name, type(layer).__name__,
        )  # fmt: skip
    lost = why_not_rebuildable(layer)
    if lost:
        LOG.warning(
            "layer '%s' (%s) will come back from the file as another one: %s",
            layer.name, type(layer).__name__, lost,
        )  # fmt: skip
