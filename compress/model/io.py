"""Loading and saving of Keras models."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from compress.core.arguments import check_arguments
from compress.core.atomic_files import replace_file
from compress.core.errors import InputError
from compress.core.lazy_modules import keras
from compress.model import keras2_files
from compress.model.file_formats import check_model_file
from compress.model.keras_internals import is_graph, list_direct_variables, list_layers
from compress.model.layers import is_keras
from compress.model.rebuild import (
    as_graph,
    build_lenient_classes,
    find_rebuild_failure,
    needs_lenient_config,
)

LOG = logging.getLogger("paretune")


def as_model(model: keras.Model | str | Path) -> keras.Model:
    """Return a Keras model, loaded if its path is given.

    Args:
        model: A Keras model, which is returned unchanged, or a path for `load_model`.

    Raises:
        InputError: The value is neither, or the file cannot be read.
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

    Files of Keras 2 are supported if Keras 3 has their layers (see
    `compress.model.keras2_files`). No code in the file is executed: Lambda layers with Python
    code are rejected, as in Keras's safe mode.

    Args:
        path: The file.

    Returns:
        The model, not compiled. A subclassed model is returned as a graph if it can be traced.

    Raises:
        InputError: The file does not exist, has another suffix, or cannot be read by Keras 3 (the
            message names the layer and the reason). Or the model is unusable: a Sequential without
            inputs, empty inputs, NaN weights, negative variances.

    Example:
        >>> load_model(folder / "model.keras").count_params()
        131
    """
    path = Path(path)
    check_model_file(path)

    try:
        with keras2_files.open_as_keras3(path) as file:
            model = _read_file(file)
    except Exception as error:  # Keras raises many types here, from BadZipFile to TypeError
        raise keras2_files.explain_unreadable(path, error) from None
    _check_inputs(model, path)
    _check_weights(model, path)
    # only the computation of a subclassed model is needed; return it as it is if it is untraceable
    with suppress(InputError):
        return as_graph(model)
    return model


def _read_file(file: Path) -> keras.Model:
    """Load a file with Keras; on failure, ignore config entries unknown to users' layers."""
    try:
        return keras.saving.load_model(file, compile=False)
    except Exception:
        # report the first error, not one of the second attempt
        with suppress(Exception), keras.saving.custom_object_scope(build_lenient_classes(file)):
            return keras.saving.load_model(file, compile=False)
        raise


def _check_inputs(model: keras.Model, path: Path) -> None:
    """Raise an error if a model has no inputs, or inputs without elements."""
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
    """Raise an error if a weight turns every output into NaN, with the name of the layer."""
    for layer in list_layers(model):
        if layer.variables and layer is not model:
            for variable in list_direct_variables(layer):
                _check_variable(variable, layer.name, path)


def _check_variable(variable: Any, layer: str, path: Path) -> None:
    """Raise InputError if a float weight holds NaN, or a variance is negative."""
    values = np.asarray(variable)
    if values.dtype.kind not in "fV":
        return
    values = values.astype(np.float32)  # NumPy has no bfloat16
    if np.isnan(values).any():
        raise InputError(
            f"Weights of model '{path}' must be numbers. Received: NaN in '{variable.name}' of "
            f"layer '{layer}'. Its training diverged, or the file is corrupt."
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
        path: Path that ends in `.keras`.

    Raises:
        InputError: The file could not be loaded again, because a layer cannot be rebuilt from its
            config.
    """
    check_saveable(model)
    with replace_file(path) as temporary:
        model.save(temporary)


def check_saveable(layer: keras.layers.Layer) -> None:
    """Check that a model can be loaded from its file; warn about incomplete configs.

    Args:
        layer: A layer or model; for a graph, each of its layers is checked.

    Raises:
        InputError: A layer cannot be rebuilt from its config.
    """
    if isinstance(layer, keras.Model) and is_graph(layer):
        for part in list_layers(layer, include_self=False, nested=False):
            check_saveable(part)
        return
    failure = find_rebuild_failure(layer, attributes=False)
    if failure:
        raise InputError(
            f"Layer '{layer.name}' ({type(layer).__name__}) must be rebuildable from its config to "
            f"be saved in a .keras file. Received: {failure}. Implement get_config() and "
            "from_config(), or keep the weights with save_weights()."
        )
    if not is_keras(layer) and needs_lenient_config(layer):
        LOG.warning(
            "layer '%s' (%s) puts into its config what its constructor does not take: "
            "paretune.load_model reads the file, Keras alone does not",
            layer.name, type(layer).__name__,
        )  # fmt: skip
    lost_attribute = find_rebuild_failure(layer)
    if lost_attribute:
        LOG.warning(
            "layer '%s' (%s) will come back from the file as another one: %s",
            layer.name, type(layer).__name__, lost_attribute,
        )  # fmt: skip
