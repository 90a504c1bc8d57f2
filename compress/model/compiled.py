"""What a model was compiled with: losses and metrics of its outputs, as functions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.core.errors import InputError
from compress.model.graphs import as_graph
from compress.model.internals import compile_arguments
from compress.model.ports import output_names

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class CompiledOutput:
    """What one output was compiled with.

    Attributes:
        loss: A Keras loss or a function (y_true, y_pred); None: there is none.
        metrics: Keras metrics, made anew.
        weight: Of the loss among those of all outputs; None: it was not said.
    """

    loss: Any = None
    metrics: tuple[Any, ...] = ()
    weight: float | None = None

    @property
    def own(self) -> bool:
        """Whether the loss is the user's: none of Keras's."""
        kind = self.loss if callable(self.loss) and not _is_loss(self.loss) else type(self.loss)
        function = getattr(self.loss, "fn", None)  # Keras wraps functions
        module = str(getattr(function or kind, "__module__", ""))
        return self.loss is not None and not module.startswith("keras.")


def compiled_outputs(
    model: keras.Model, graph: keras.Model | None = None
) -> dict[str, CompiledOutput]:
    """Returns what a model's outputs were compiled with, by their names; {}: it was not compiled.

    Args:
        model: Any.
        graph: Of the same layers, where it is at hand; see `compress.model.graphs.as_graph`.

    Raises:
        InputError: Losses or metrics are of other outputs than the model's.
    """
    import keras

    arguments = compile_arguments(model)
    if arguments is None:
        return {}
    graph = as_graph(model) if graph is None else graph
    names = output_names(graph)
    losses = _by_output(arguments["loss"], names, "loss", several=False)
    metrics = _by_output(arguments["metrics"], names, "metrics", several=True)
    weights = _by_output(arguments["loss_weights"], names, "loss_weights", several=False)
    found = {}
    for place, name in enumerate(names):
        width = graph.outputs[place].shape[-1]
        given = metrics[name]
        given = list(given) if isinstance(given, (list, tuple)) else [given]
        found[name] = CompiledOutput(
            None if losses[name] is None else keras.losses.get(losses[name]),
            tuple(_metric(item, width) for item in given if item is not None),
            None if weights[name] is None else float(weights[name]),
        )
    return found


def compiled_of(path: Path) -> dict[str, CompiledOutput]:
    """Returns what the model in a file was compiled with; see `compiled_outputs`.

    Raises:
        InputError: See `compiled_model`.
    """
    return compiled_outputs(compiled_model(path))


def compiled_model(path: Path) -> keras.Model:
    """Loads a model as it was: of the user's class, with its losses and metrics.

    What is the user's own is found again where it is registered, or where its module can be
    imported.

    Raises:
        InputError: It cannot be found.
    """
    import keras

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of optimizers, which are not asked for
            return keras.saving.load_model(path, compile=True)
    except Exception as error:  # keras raises many kinds here
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"The class of '{path}' and what it was compiled with must be found again. Received: "
            f"{reason}. Register them (keras.saving.register_keras_serializable), import them "
            "with --plugins, or give the model itself in Python."
        ) from None


def _by_output(given: Any, names: list[str], what: str, *, several: bool) -> dict[str, Any]:
    """Returns what is said of each output.

    Args:
        given: As `compile` takes it: one for all, a list in the outputs' order, or by name.
        names: Of the outputs.
        what: For the error.
        several: Whether an output may have a list of its own.
    """
    if isinstance(given, Mapping):
        strange = [name for name in given if name not in names]
        if strange:
            raise InputError(
                f"{what} must name outputs of the model: {', '.join(names)}. Received: "
                f"'{strange[0]}'."
            )
        return {name: given.get(name) for name in names}
    if isinstance(given, (list, tuple)) and not (several and len(names) == 1):
        if several and not any(isinstance(item, (list, tuple)) for item in given):
            return {name: list(given) for name in names}
        if len(given) != len(names):
            raise InputError(
                f"{what} must have one entry an output ({', '.join(names)}). Received: "
                f"{len(given)}."
            )
        return dict(zip(names, given, strict=True))
    return dict.fromkeys(names, given)


def _metric(given: Any, width: int | None) -> Any:
    import keras

    if given in ("accuracy", "acc"):
        given = "binary_accuracy" if width == 1 else "sparse_categorical_accuracy"
    made: Any = keras.metrics.get(given)
    if isinstance(made, keras.metrics.Metric):
        # another one than the model's own, which `fit` and `evaluate` go on to use
        return type(made).from_config(made.get_config()) if made is given else made
    function: Callable[..., Any] = made
    return keras.metrics.MeanMetricWrapper(function, name=getattr(function, "__name__", "metric"))


def less_is_better(metric: Any) -> bool:
    """Tells whether a metric is an error or a loss, by its name and its function's."""
    function = getattr(metric, "_fn", None)
    words = f"{type(metric).__name__} {metric.name} {getattr(function, '__module__', '')}".lower()
    less = ("error", "loss", "crossentropy", "divergence", "hinge", "log_cosh", "poisson", "mae",
            "mse", "keras.src.losses")  # fmt: skip
    return any(word in words for word in less)


def _is_loss(value: Any) -> bool:
    import keras

    return isinstance(value, keras.losses.Loss)
