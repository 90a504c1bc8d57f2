"""What a model adds to its loss itself: regularizers, activities, `add_loss`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras


@contextmanager
def added_losses(model: keras.Model, training: bool) -> Iterator[Callable[[], Any]]:
    """Collects the losses that a model adds while it is called, as `fit` does.

    Whatever is called meanwhile counts, the model as a whole or its layers one by one: Keras
    itself forgets a layer's losses when a call begins that is inside no other.

    Args:
        model: Any Keras model.
        training: Mode of the calls that are not told one.

    Yields:
        A function without arguments: the sum of all losses so far, a float32 scalar (0 where
        there are none). To be called inside the context; nothing stays in the model behind it.
    """
    import keras
    from keras.src.backend.common import global_state
    from keras.src.layers.layer import CallContext

    def total() -> Any:
        # one loss may be an array: its sum counts, as in `fit`
        parts = [keras.ops.sum(keras.ops.cast(loss, "float32")) for loss in model.losses]
        return sum(parts[1:], parts[0]) if parts else keras.ops.zeros((), "float32")

    context = CallContext(entry_layer=None)
    context.training = training
    before = global_state.get_global_attribute("current_call_ctx")
    forget_losses(model)
    global_state.set_global_attribute("current_call_ctx", context)
    try:
        yield total
    finally:
        global_state.set_global_attribute("current_call_ctx", before)
        forget_losses(model)


def forget_losses(model: keras.Model) -> None:
    """Removes the losses of a model's last calls: of traced ones no value can be read."""
    model._clear_losses()
