"""Compile configuration of a model: losses, metrics, and a custom `train_step`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.core.errors import InputError
from compress.core.lazy_modules import keras, tf
from compress.core.module_loading import describe_error
from compress.model.keras_internals import (
    build_compiled_variables,
    convert_to_class,
    get_metric_function,
    read_compile_arguments,
)
from compress.model.ports import list_output_names
from compress.model.rebuild import as_graph


@dataclass(frozen=True)
class CompiledOutput:
    """Compile configuration of one output.

    Attributes:
        loss: A Keras loss or a function (y_true, y_pred), or None.
        metrics: New Keras metrics.
        weight: Weight of the loss in the total loss, or None if not given.
    """

    loss: Any = None
    metrics: tuple[Any, ...] = ()
    weight: float | None = None

    @property
    def has_custom_loss(self) -> bool:
        """Whether the loss is defined by the user, not by Keras."""
        is_function = callable(self.loss) and not isinstance(self.loss, keras.losses.Loss)
        kind = self.loss if is_function else type(self.loss)
        function = getattr(self.loss, "fn", None)  # Keras wraps functions
        module = str(getattr(function or kind, "__module__", ""))
        return self.loss is not None and not module.startswith("keras.")


def read_compiled_outputs(
    model: keras.Model, graph: keras.Model | None = None
) -> dict[str, CompiledOutput]:
    """Return the loss and metrics of each output by name, or {} if the model is not compiled.

    Args:
        model: Any Keras model.
        graph: The model as a graph, if available. Default: built by
            `compress.model.rebuild.as_graph`.

    Raises:
        InputError: Losses or metrics do not match the outputs of the model.
    """
    arguments = read_compile_arguments(model)
    if arguments is None:
        return {}
    graph = as_graph(model) if graph is None else graph
    names = list_output_names(graph)
    losses = _split_by_output(arguments["loss"], names, "loss", several=False)
    metrics = _split_by_output(arguments["metrics"], names, "metrics", several=True)
    weights = _split_by_output(arguments["loss_weights"], names, "loss_weights", several=False)
    outputs = {}
    for index, name in enumerate(names):
        output_size = graph.outputs[index].shape[-1]
        output_metrics = metrics[name]
        output_metrics = (
            list(output_metrics) if isinstance(output_metrics, (list, tuple)) else [output_metrics]
        )
        outputs[name] = CompiledOutput(
            None if losses[name] is None else keras.losses.get(losses[name]),
            tuple(_build_metric(item, output_size) for item in output_metrics if item is not None),
            None if weights[name] is None else float(weights[name]),
        )
    return outputs


def load_compiled_model(path: Path) -> keras.Model:
    """Load a model with its original class, losses and metrics.

    The user's classes and functions must be registered with Keras or importable.

    Raises:
        InputError: A class or function cannot be found.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # optimizers are not needed
            return keras.saving.load_model(path, compile=True)
    except Exception as error:  # Keras raises many types here
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"The class of '{path}' and what it was compiled with must be found again. Received: "
            f"{reason}. Register them (keras.saving.register_keras_serializable), import them "
            "with --plugins, or give the model itself in Python."
        ) from None


def is_lower_better(metric: Any) -> bool:
    """Return whether a metric is an error or a loss, by its name and that of its function."""
    function = get_metric_function(metric)
    description = (
        f"{type(metric).__name__} {metric.name} {getattr(function, '__module__', '')}".lower()
    )
    loss_words = (
        "error",
        "loss",
        "crossentropy",
        "divergence",
        "hinge",
        "log_cosh",
        "poisson",
        "mae",
        "mse",
        "keras.src.losses",
    )
    return any(word in description for word in loss_words)


@dataclass(frozen=True, eq=False)
class CustomTrainStep:
    """A `train_step` of a user's model class, with the attributes that it reads from `self`.

    Numbers, functions and counters among the model's attributes are shared, and metrics are created
    anew. Layers and trainable weights belong to the original model: `train_step` must access those
    of the pruned model through `self(x)`, `self.get_layer` or `self.trainable_variables`.

    Attributes:
        model: The user's model; it is not changed.
    """

    model: keras.Model

    @property
    def name(self) -> str:
        """Name of the class."""
        return type(self.model).__name__

    def build_model(self, student: keras.Model, optimizer: Any) -> keras.Model:
        """Return a model of the user's class with the layers of a graph.

        It is compiled like the user's model, but with another optimizer.

        Args:
            student: A functional or Sequential model to train with `train_step`.
            optimizer: A Keras optimizer built for the weights of `student`.
        """
        custom_model = convert_to_class(student, type(self.model))
        arguments = read_compile_arguments(self.model) or {}
        custom_model.compile(
            optimizer=optimizer,
            loss=arguments.get("loss"),
            loss_weights=arguments.get("loss_weights"),
            metrics=_copy_metrics(arguments.get("metrics")),
            weighted_metrics=_copy_metrics(arguments.get("weighted_metrics")),
        )
        for name, value in vars(self.model).items():
            if name not in vars(custom_model):
                _copy_attribute(custom_model, name, value)
        return custom_model


def find_custom_train_step(model: keras.Model) -> CustomTrainStep | None:
    """Return a model's custom `train_step`, or None if it uses that of Keras."""
    is_custom = type(model).train_step is not keras.Model.train_step
    return CustomTrainStep(model) if is_custom else None


def run_train_step(model: keras.Model, batch: tuple[Any, Any, Any]) -> Any:
    """Call a compiled model's `train_step` once (graph code).

    Args:
        model: From `CustomTrainStep.build_model`.
        batch: Inputs, labels and weights (or None), as the class takes them.

    Returns:
        The loss of this batch: the entry "loss", or else the first entry that `train_step` returns.

    Raises:
        InputError: `train_step` fails, or does not return a dictionary of numbers.
    """
    try:
        build_compiled_variables(model, batch)
        # metrics average over an epoch; reset them to get the values of one step
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
            f"{describe_error(error)}.{remedy}"
        ) from error


def _copy_attribute(custom_model: Any, name: str, value: Any) -> None:
    """Give the pruned model an attribute of the user's model."""
    parts = keras.tree.flatten(value) if isinstance(value, (list, tuple, dict)) else [value]
    if any(isinstance(part, keras.Metric) for part in parts):
        setattr(custom_model, name, _copy_metrics(value))
        return
    unshared_types = (keras.layers.Layer, keras.optimizers.Optimizer, keras.KerasTensor)
    are_trainable = [isinstance(part, keras.Variable) and bool(part.trainable) for part in parts]
    if not any(are_trainable) and not any(isinstance(part, unshared_types) for part in parts):
        # bypass Keras's tracking: a counter is not a weight of this model
        vars(custom_model)[name] = value


def _copy_metrics(structure: Any) -> Any:
    """Return a structure with new copies of its metrics and unchanged other values."""
    if isinstance(structure, dict):
        return {name: _copy_metrics(item) for name, item in structure.items()}
    if isinstance(structure, (list, tuple)):
        return [_copy_metrics(item) for item in structure]
    if isinstance(structure, keras.Metric):
        return type(structure).from_config(structure.get_config())
    return structure


def _split_by_output(
    setting: Any, names: list[str], argument: str, *, several: bool
) -> dict[str, Any]:
    """Return the setting of each output, by name.

    Args:
        setting: As in `compile`: one setting for all outputs, a list in their order, or a
            dictionary by name.
        names: Names of the outputs.
        argument: Name of the argument, for the error message.
        several: Whether an output may have a list of settings.
    """
    if isinstance(setting, Mapping):
        unknown = [name for name in setting if name not in names]
        if unknown:
            raise InputError(
                f"{argument} must name outputs of the model: {', '.join(names)}. Received: "
                f"'{unknown[0]}'."
            )
        return {name: setting.get(name) for name in names}
    if isinstance(setting, (list, tuple)) and not (several and len(names) == 1):
        if several and not any(isinstance(item, (list, tuple)) for item in setting):
            return {name: list(setting) for name in names}
        if len(setting) != len(names):
            raise InputError(
                f"{argument} must have one entry an output ({', '.join(names)}). Received: "
                f"{len(setting)}."
            )
        return dict(zip(names, setting, strict=True))
    return dict.fromkeys(names, setting)


def _build_metric(identifier: Any, output_size: int | None) -> Any:
    if identifier in ("accuracy", "acc"):
        identifier = "binary_accuracy" if output_size == 1 else "sparse_categorical_accuracy"
    metric: Any = keras.metrics.get(identifier)
    if isinstance(metric, keras.metrics.Metric):
        # a copy: the model's `fit` and `evaluate` still use the original
        return type(metric).from_config(metric.get_config()) if metric is identifier else metric
    function: Callable[..., Any] = metric
    return keras.metrics.MeanMetricWrapper(function, name=getattr(function, "__name__", "metric"))
