"""What a model was compiled with: losses and metrics of its outputs; and its own `train_step`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.core.errors import InputError
from compress.core.interpreter import told
from compress.core.lazy_modules import keras, tf
from compress.model.internals import (
    compile_arguments,
    function_of,
    graph_of_class,
    prepare_compiled,
)
from compress.model.ports import output_names
from compress.model.rebuild import as_graph


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
        is_function = callable(self.loss) and not isinstance(self.loss, keras.losses.Loss)
        kind = self.loss if is_function else type(self.loss)
        function = getattr(self.loss, "fn", None)  # Keras wraps functions
        module = str(getattr(function or kind, "__module__", ""))
        return self.loss is not None and not module.startswith("keras.")


def compiled_outputs(
    model: keras.Model, graph: keras.Model | None = None
) -> dict[str, CompiledOutput]:
    """Return the loss and metrics of each output of a compiled model, by name; {}: not compiled.

    Args:
        model: Any.
        graph: Of the same layers, where it is at hand; see `compress.model.rebuild.as_graph`.

    Raises:
        InputError: Losses or metrics are of other outputs than the model's.
    """
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
    """Return the loss and metrics of each output of a saved model; see `compiled_outputs`.

    Raises:
        InputError: See `compiled_model`.
    """
    return compiled_outputs(compiled_model(path))


def compiled_model(path: Path) -> keras.Model:
    """Load a model as it was: of the user's class, with its losses and metrics.

    What is the user's own is found again where it is registered, or where its module can be
    imported.

    Raises:
        InputError: It cannot be found.
    """
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


def less_is_better(metric: Any) -> bool:
    """Return whether a metric is an error or a loss, by its name and its function's."""
    function = function_of(metric)
    words = f"{type(metric).__name__} {metric.name} {getattr(function, '__module__', '')}".lower()
    less = ("error", "loss", "crossentropy", "divergence", "hinge", "log_cosh", "poisson", "mae",
            "mse", "keras.src.losses")  # fmt: skip
    return any(word in words for word in less)


@dataclass(frozen=True, eq=False)
class OwnStep:
    """The `train_step` of a user's model class, and the attributes that it reads from `self`.

    Of the model's attributes numbers, functions and counters are shared, metrics are made anew.
    Layers and trainable weights belong to the larger model: `train_step` has to reach those of
    the smaller one by `self(x)`, `self.get_layer` or `self.trainable_variables`.

    Attributes:
        model: The user's; it stays as it is.
    """

    model: keras.Model

    @property
    def name(self) -> str:
        """Of the class."""
        return type(self.model).__name__

    def on(self, student: keras.Model, optimizer: Any) -> keras.Model:
        """Return a model of the user's class with the layers of a graph.

        It is compiled as the user's model is, with another optimizer.

        Args:
            student: A functional or Sequential model, which `train_step` then trains.
            optimizer: Built for its weights.
        """
        made = graph_of_class(student, type(self.model))
        given = compile_arguments(self.model) or {}
        made.compile(
            optimizer=optimizer,
            loss=given.get("loss"),
            loss_weights=given.get("loss_weights"),
            metrics=_anew(given.get("metrics")),
            weighted_metrics=_anew(given.get("weighted_metrics")),
        )
        for name, value in vars(self.model).items():
            if name not in vars(made):
                _hand_over(made, name, value)
        return made


def own_step_of(model: keras.Model) -> OwnStep | None:
    """Return a model's own `train_step`; None: it is trained as Keras trains any."""
    own = type(model).train_step is not keras.Model.train_step
    return OwnStep(model) if own else None


def step_on(model: keras.Model, batch: tuple[Any, Any, Any]) -> Any:
    """Make one call of a compiled model's `train_step` (graph code).

    Args:
        model: From `OwnStep.on`.
        batch: Inputs, labels and weights (or None) as its class takes them.

    Returns:
        The loss: what it calls "loss", else the first that it returns; of this batch alone.

    Raises:
        InputError: It fails, or returns no numbers by name.
    """
    try:
        prepare_compiled(model, batch)
        # metrics are means over an epoch: those of one step are wanted
        model.reset_metrics()
        logs = model.train_step(batch)
        if not isinstance(logs, dict) or not logs:
            raise InputError(
                f"train_step of {type(model).__name__} must return numbers by name, as Keras's "
                f"does. Received: {type(logs).__name__}."
            )
        return tf.cast(logs.get("loss", next(iter(logs.values()))), tf.float32)
    except InputError:
        raise
    except Exception as error:  # the user's own code
        remedy = (
            " Layers and trainable weights that are attributes stay with the larger model: reach "
            "them by self(x), self.get_layer(name) or self.trainable_variables."
            if isinstance(error, AttributeError)
            else ""
        )
        raise InputError(
            f"train_step of {type(model).__name__} must run on the smaller model. It raised "
            f"{told(error)}.{remedy}"
        ) from error


def _hand_over(made: Any, name: str, value: Any) -> None:
    """Give an attribute of the user's model to the smaller one."""
    parts = keras.tree.flatten(value) if isinstance(value, (list, tuple, dict)) else [value]
    if any(isinstance(part, keras.Metric) for part in parts):
        setattr(made, name, _anew(value))
        return
    larger = (keras.layers.Layer, keras.optimizers.Optimizer, keras.KerasTensor)
    learnt = [isinstance(part, keras.Variable) and bool(part.trainable) for part in parts]
    if not any(learnt) and not any(isinstance(part, larger) for part in parts):
        vars(made)[name] = value  # past Keras's tracking: a counter is no weight of this model


def _anew(structure: Any) -> Any:
    """Return a structure with fresh copies of its metrics; other values stay as they are."""
    if isinstance(structure, dict):
        return {name: _anew(item) for name, item in structure.items()}
    if isinstance(structure, (list, tuple)):
        return [_anew(item) for item in structure]
    if isinstance(structure, keras.Metric):
        return type(structure).from_config(structure.get_config())
    return structure


def _by_output(given: Any, names: list[str], what: str, *, several: bool) -> dict[str, Any]:
    """Return the setting of each output.

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
    if given in ("accuracy", "acc"):
        given = "binary_accuracy" if width == 1 else "sparse_categorical_accuracy"
    made: Any = keras.metrics.get(given)
    if isinstance(made, keras.metrics.Metric):
        # another one than the model's own, which `fit` and `evaluate` go on to use
        return type(made).from_config(made.get_config()) if made is given else made
    function: Callable[..., Any] = made
    return keras.metrics.MeanMetricWrapper(function, name=getattr(function, "__name__", "metric"))
