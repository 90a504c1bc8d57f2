"""Layers that work in training alone, such as augmentation: no part of what is exported or timed.

Keras leaves such a layer's input as it is in inference, but still draws its random numbers, which
no converter knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from compress.model.internals import layers_inside
from compress.model.layers import class_of, select_classes
from compress.model.walk import named_layers

if TYPE_CHECKING:
    import keras

TRAINING_ONLY = select_classes("left_out")
"""Keras's layers of which inference computes nothing; what Dropout leaves behind converts."""


def training_only(model: keras.Model) -> dict[str, Any]:
    """Returns the layers of a model that work in training alone, by name.

    Args:
        model: Any model; models, pipelines and wrappers inside it are looked into.
    """
    found: dict[str, Any] = {}
    for path, layer in named_layers(model):
        # those inside another one (RandAugment's) go with it
        left = "left_out" in class_of(layer, keras_only=True).traits
        if left and not any(path.startswith(f"{outer}/") for outer in found):
            found[path] = layer
    return found


@contextmanager
def inference_alone(model: keras.Model) -> Iterator[None]:
    """Lets layers that work in training alone pass their input on, while the context lasts.

    Layers that do for a file something else than for a model (`for_file`) do so.
    """
    layers = list(training_only(model).values())
    special = [layer for layer in layers_inside(model) if hasattr(layer, "for_file")]
    for layer in layers:
        layer.call = lambda inputs, **_: inputs
    for layer in special:
        layer.for_file = True
    try:
        yield
    finally:
        for layer in layers:
            del layer.call
        for layer in special:
            layer.for_file = False


def rounds_itself(model: keras.Model) -> bool:
    """Tells whether a model rounds its values as integers do; see `compress.quantization`."""
    return any(getattr(layer, "is_range", False) for layer in layers_inside(model))


@contextmanager
def reduce_range(model: keras.Model) -> Iterator[bool]:
    """Give the weights of a model that rounds its values 7 bits, while the context lasts.

    Two products of 8-bit weights overflow where a processor without VNNI adds them in 16 bits, as
    ONNX Runtime and OpenVINO do there.

    Yields:
        Whether that changes the model: it was trained, or calibrated, with weights of 8 bits.
    """
    layers = [layer for layer in layers_inside(model) if hasattr(layer, "reduced_range")]
    wide = [layer for layer in layers if not layer.reduced_range]
    for layer in wide:
        layer.reduced_range = True
    try:
        yield bool(wide)
    finally:
        for layer in wide:
            layer.reduced_range = False


def left_out(model: keras.Model) -> tuple[str, ...]:
    """Returns a note on the layers that are no part of exported files, where there are any."""
    names = ", ".join(
        f"{path} ({type(layer).__name__})" for path, layer in training_only(model).items()
    )
    return (f"exported without layers that work in training alone: {names}",) if names else ()
