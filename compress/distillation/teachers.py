"""The teachers: frozen, in inference mode, and what of their outputs the losses need."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core.arrays import named
from compress.core.errors import InputError
from compress.data import Dataset, Preprocessing
from compress.data.tasks import UNLABELLED, Task
from compress.model.heads import check_head, check_shapes
from compress.model.inference import fused_normalization
from compress.model.logits import logits_view
from compress.model.program import Node, Program
from compress.model.rebuild import config_of
from compress.model.recording import record

if TYPE_CHECKING:
    import keras

    from compress.distillation.hints import Hint

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


class Teachers:
    """One teacher or several, as one function of inputs.

    Args:
        models: They are run in inference mode; nothing of them is changed.
        task: Of the data.
        hints: Losses on features; their layers are those of the first teacher.
        orders: For each teacher which of its outputs stand for the data's classes, or None.
        scalings: For each teacher how its inputs are made from the student's; None: the same.
    """

    def __init__(
        self,
        models: Sequence[keras.Model],
        task: Task,
        hints: Sequence[Hint],
        orders: Sequence[np.ndarray[Any, Any] | None],
        scalings: Sequence[Preprocessing | None] | None = None,
    ) -> None:
        self.models = list(models)
        self._task, self._hints, self._orders = task, hints, orders
        self._scalings = scalings or [None] * len(models)
        self._views: list[Any] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Makes `outputs` usable: heads are found, normalization is fused."""
        feature_layers = tuple(dict.fromkeys(hint.pair.teacher for hint in self._hints))
        with ExitStack() as stack:
            for place, model in enumerate(self.models):
                wanted = feature_layers if place == 0 else ()
                stack.enter_context(fused_normalization(model))
                view = stack.enter_context(logits_view(model, self._task, wanted))
                self._views.append((view, bool(wanted)))
            try:
                yield
            finally:
                self._views.clear()

    def outputs(self, inputs: Any) -> dict[str, Any]:
        """Returns what the losses need for a batch of model inputs (graph code).

        Returns:
            "teacher_logits" (batch, teachers, ..., outputs) and "teacher_hint<i>" for each hint;
            of several outputs "teacher_logits_<name>".
        """
        import tensorflow as tf

        logits: dict[str, list[Any]] = {name: [] for name in self._task.parts}
        found = {}
        for (view, tapping), order, scaling in zip(
            self._views, self._orders, self._scalings, strict=True
        ):
            fed = inputs if scaling is None else scaling.in_graph()(inputs)
            output = view(fed, training=False)
            if tapping:
                output, features = output
                for place, hint in enumerate(self._hints):
                    found[f"teacher_hint{place}"] = hint.loss.reduced(features[hint.pair.teacher])
            for name, made in named(output):
                logits[name].append(made if order is None else tf.gather(made, order, axis=-1))
        outputs = {logits_of(name): tf.stack(made, axis=1) for name, made in logits.items()}
        outputs |= found
        return {name: tf.stop_gradient(value) for name, value in outputs.items()}

    def fingerprint(self) -> str:
        """Returns a hash of architectures, weights and of what is taken from them."""
        digest = hashlib.sha256()
        for model, order in zip(self.models, self._orders, strict=True):
            digest.update(structure(record(model)).encode())
            for variable in model.variables:
                digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
            digest.update(repr(None if order is None else order.tolist()).encode())
        for scaling in filter(None, self._scalings):
            digest.update(scaling.identity.encode())
        for hint in self._hints:
            digest.update(f"{hint.loss.name} {hint.pair}".encode())
        return digest.hexdigest()[:32]


def logits_of(name: str) -> str:
    """Returns what the teachers' logits of an output are called; "": there is one output."""
    return f"teacher_logits_{name}" if name else "teacher_logits"


def structure(program: Program) -> str:
    """Returns what a program computes, without the names that Keras numbers anew each time."""
    import keras

    lines = []
    numbers = count()

    def call(node: Node, given: list[_Place]) -> list[_Place]:
        operation = node.operation
        config = {}
        if node.body is None and isinstance(operation, keras.layers.Layer):
            config = {k: v for k, v in _settings(operation).items() if k != "name"}
        inside = "" if node.body is None else f"({structure(node.body)})"
        called = " ".join(map(repr, keras.tree.flatten(node.arguments(given))))
        lines.append(f"{type(operation).__name__} {config} {called} {inside}")
        return [_Place(next(numbers)) for _ in node.outputs]

    program.interpret(call, [_Place(next(numbers)) for _ in program.inputs], nested=call)
    return "\n".join(lines)


def _settings(layer: Any) -> dict[str, Any]:
    """Return a layer's config, or its public attributes where it has none.

    Keras serializes no activation that is an object or a `functools.partial`.
    """
    try:
        return config_of(layer)
    except (NotImplementedError, TypeError):
        plain = {name: value for name, value in vars(layer).items() if not name.startswith("_")}
        return {name: _ADDRESS.sub("", repr(value)) for name, value in sorted(plain.items())}


@dataclass(frozen=True, repr=False)
class _Place:
    """Stands for a tensor: the how-manieth it is."""

    number: int

    def __repr__(self) -> str:
        return f"#{self.number}"


def blended(logits: Any, weights: Sequence[float], activation: str, temperature: Any) -> Any:
    """Returns the logits whose softened predictions are the weighted mean of the teachers'.

    softmax(z / T) = sum_k w_k softmax(z_k / T), likewise with sigmoid; of numbers the mean.

    Args:
        logits: (batch, teachers, ..., outputs), float32.
        weights: Of the teachers, sum 1.
        activation: Of the task.
        temperature: T, above 0.

    Returns:
        (batch, ..., outputs).

    Reference:
        Hinton, Vinyals & Dean 2015, section 1 (ensembles: the arithmetic mean of the
        predictive distributions).
    """
    import tensorflow as tf

    if len(weights) == 1:
        return logits[:, 0]
    # (teachers, 1 ...)
    share = tf.reshape(tf.constant(weights, tf.float32), (-1, *[1] * (len(logits.shape) - 2)))
    if activation == "linear":
        return tf.reduce_sum(logits * share, axis=1)
    softened = logits / temperature
    if activation == "softmax":
        log = tf.nn.log_softmax(softened) + tf.math.log(share)
        return temperature * tf.reduce_logsumexp(log, axis=1)
    yes = tf.reduce_logsumexp(tf.math.log_sigmoid(softened) + tf.math.log(share), axis=1)
    no = tf.reduce_logsumexp(tf.math.log_sigmoid(-softened) + tf.math.log(share), axis=1)
    return temperature * (yes - no)


def class_order(
    teacher: keras.Model, data: Dataset, names: Sequence[str] | None
) -> np.ndarray[Any, Any] | None:
    """Checks a teacher against the data and maps its classes by name.

    Args:
        teacher: Its input must take the data's examples.
        data: Its class names are those that the student learns.
        names: The teacher's class names in its order; None: unknown, so its outputs are
            taken to stand in the data's order.

    Returns:
        Which output of the teacher stands for each class of the data; None: as they are.

    Raises:
        InputError: Another number of outputs, or names that do not hold all of the data's.
    """
    if names is None or data.kind == UNLABELLED or len(data.task.parts) > 1:
        check_head(teacher, data)
        return None
    check_shapes(teacher, data)
    width = teacher.outputs[0].shape[-1]
    named = data.task.outputs == data.num_classes and data.task.activation != "linear"
    if not named or width != len(names):
        wanted = list(data.class_names)
        if list(names) == wanted and width == data.task.outputs:
            return None
        raise InputError(
            f"Teacher '{teacher.name}' must have the data's outputs {wanted}. Received: "
            f"{list(names)} for {width} outputs."
        )
    missing = [name for name in data.class_names if name not in names]
    if missing:
        raise InputError(
            f"Teacher '{teacher.name}' must know every class of the data. Received: no "
            f"'{missing[0]}' among {', '.join(names)}."
        )
    order = np.array([list(names).index(name) for name in data.class_names])
    same = len(names) == data.num_classes and (order == np.arange(len(order))).all()
    return None if same else order
