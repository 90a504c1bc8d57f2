"""Many training steps in one compiled function, on data in memory."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.arrays import mapped
from compress.core.device import Device
from compress.core.errors import InputError
from compress.data import Dataset
from compress.data.tasks import has_classes
from compress.model.logits import LogitsView
from compress.train.augment import augmented, moved
from compress.train.objective import Batch, Step
from compress.train.records import TrainContext

PROBE = 256
"""Training examples on which the loss before training is taken, at most."""
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the training at which it is taken: temperature and weights may change."""


class Steps:
    """Runs steps of (steps, batch) indices in one call and returns the sum of their losses.

    A step's loss is the objective's and what the model adds itself (regularizers, `add_loss`).

    Args:
        context: Of the training.
        view: The model, as a function to logits.
        variables: What is trained.
        optimizer: Built for them.
        step: The int64 variable that counts steps.
        own: Makes each step in place of the objective's loss; see `Objective.step`.
    """

    def __init__(
        self,
        context: TrainContext,
        *,
        view: LogitsView,
        variables: list[Any],
        optimizer: Any,
        step: Any,
        own: Step | None = None,
    ) -> None:
        import tensorflow as tf

        data, settings, objective = context.data, context.settings, context.objective
        device, seed, total_steps = context.device, context.seed, context.total_steps
        self.notes: list[str] = []
        # what the user's own step does may be more than XLA knows
        self._jit, self._step = device.jit and own is None, step
        scaled = device.policy == "mixed_float16"
        images = mapped(lambda values: _held(values, device), data.train.x)
        labels = mapped(lambda values: _held(values, device), data.train.y)
        rows = {name: _reader(array) for name, array in objective.arrays().items()}
        per_example = example_weights(data, settings.class_weights)
        weights, mean_weight = tf.constant(per_example), float(per_example.mean())
        weighted = bool((per_example != 1).any())
        scaling = data.preprocess.in_graph()

        def gather(batch: Any) -> dict[str, Any]:
            found = {name: read(batch) for name, read in rows.items()}
            # the names of ours cannot collide: an objective's rows are "teacher..."
            return {
                "images": mapped(lambda values: tf.gather(values, batch), images),
                "labels": mapped(lambda values: tf.gather(values, batch), labels),
                "weights": tf.gather(weights, batch),
                **found,
            }

        def compared(given: Mapping[str, Any], output: Any, progress: Any) -> Any:
            logits, features = output if objective.feature_layers else (output, {})
            batch = Batch(
                labels=given["labels"],
                logits=logits,
                features=features,
                given=given,
                weights=given["weights"],
                progress=progress,
            )
            return tf.reduce_mean(objective.loss(batch) * given["weights"]) / mean_weight

        def update(found: Mapping[str, Any], now: Any) -> Any:
            draw = (settings.augment, seed, now)
            raw = augmented(found["images"], *draw)
            inputs = scaling(raw)
            truth = inputs if data.gives_back else moved(found["labels"], data, *draw)
            if own is not None:
                return own(inputs, truth, found["weights"] if weighted else None)
            given = {**found, "labels": truth, **objective.live(inputs)}
            with tf.GradientTape() as tape:
                output, added = view.with_losses(inputs, training=True)
                loss = compared(given, output, tf.cast(now, tf.float32) / total_steps) + added
                target = optimizer.scale_loss(loss) if scaled else loss
            gradients = tape.gradient(target, [variable.value for variable in variables])
            optimizer.apply(gradients, variables)
            return loss

        def costs(chosen: Any) -> npt.NDArray[np.float64]:
            found = gather(chosen)
            inputs = scaling(found["images"])
            truth = inputs if data.gives_back else found["labels"]
            given = {**found, "labels": truth, **objective.live(inputs)}
            output, added = view.with_losses(inputs, training=False)
            return np.array(
                [float(compared(given, output, tf.constant(share)) + added) for share in SHARES]
            )

        self._costs, self._batch = costs, context.batch
        self._gather, self._update = gather, update
        self._run = self._trace()

    def _trace(self) -> Callable[[Any], Any]:
        import tensorflow as tf

        update = self._update
        if self._jit:
            update = tf.function(update, jit_compile=True, autograph=False)

        def one(position: Any, total: Any, index: Any) -> tuple[Any, Any, Any]:
            total += update(self._gather(index[position]), self._step.value())
            self._step.assign_add(1)
            return position + 1, total, index

        def run(index: Any) -> Any:
            start = (tf.constant(0), tf.constant(0.0), index)
            return tf.while_loop(lambda position, *_: position < tf.shape(index)[0], one, start)[1]

        # no AutoGraph: it cannot read this source on Python 3.13
        signature = [tf.TensorSpec((None, None), tf.int32)]
        traced: Callable[[Any], Any] = tf.function(run, signature, autograph=False)
        return traced

    def first_loss(self, count: int) -> float:
        """Returns the loss of the model as it is, in inference mode.

        Args:
            count: How many training examples there are: some of them are taken.

        Returns:
            The mean over examples; of an objective that changes during training the largest
            on the way. Infinite or NaN where the model's outputs are.
        """
        chosen = np.linspace(0, count - 1, min(PROBE, count)).astype(np.int32)
        # no more at a time than training takes: memory was chosen for that
        batches = np.array_split(chosen, math.ceil(len(chosen) / self._batch))
        total = sum(len(batch) * self._costs(batch) for batch in batches)
        return float(np.max(total / len(chosen)))

    def __call__(self, index: Any) -> Any:
        """Runs the steps; without XLA from now on where it cannot compile them."""
        import tensorflow as tf

        if not self._jit:
            return self._run(index)
        try:
            return self._run(index)
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError) as error:
            # compilation fails before the first step runs, so nothing is done twice
            self._jit = False
            self.notes.append(f"trained without XLA: {str(error).splitlines()[0]}")
            self._run = self._trace()
            return self._run(index)


def _held(array: npt.NDArray[Any], device: Device) -> Any:
    """Returns examples as a tensor on the device; on the CPU a mapped file is not copied."""
    import tensorflow as tf

    if isinstance(array, np.memmap) and device.kind == "cpu":
        # what TensorFlow cannot take as it lies there is copied after all
        with contextlib.suppress(BufferError, TypeError, ValueError, tf.errors.OpError):
            return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
    return tf.constant(array)


def _reader(array: npt.NDArray[Any]) -> Callable[[Any], Any]:
    """Returns a function from indices to rows; an array on disk stays there."""
    import tensorflow as tf

    if not isinstance(array, np.memmap):
        tensor = tf.constant(array)
        return lambda batch: tf.gather(tensor, batch)
    kind, shape = tf.as_dtype(array.dtype), array.shape[1:]

    def read(batch: Any) -> Any:
        found = tf.numpy_function(lambda index: array[index], [batch], kind, stateful=False)
        found.set_shape((batch.shape[0], *shape))
        return found

    return read


def example_weights(data: Dataset, mode: str) -> npt.NDArray[np.float32]:
    """Returns how many examples each training example counts for, (n,).

    The data's own weights times those of the classes.

    Args:
        data: Counts come from the training part.
        mode: "none", or "balanced": n / (classes * n_c), scikit-learn's formula.
    """
    own = data.train.weight
    weights = np.ones(len(data.train)) if own is None else own.astype(np.float64)
    if mode == "balanced":
        weights = weights * class_weights(data, mode)[data.train.y]
    return weights.astype(np.float32)


def class_weights(data: Dataset, mode: str) -> npt.NDArray[np.float32]:
    """Returns the weight of each class's examples, (classes,), mean 1 over the examples.

    Args:
        data: Counts come from the training part.
        mode: "none" (all 1) or "balanced": n / (classes * n_c), scikit-learn's formula.

    Raises:
        InputError: "balanced" where labels are no class indices.
    """
    if mode == "none":
        return np.ones(data.num_classes, np.float32)
    if not has_classes(data.kind):
        raise InputError(
            f"class_weights must be 'none' in a {data.kind} task. Received: '{mode}'. Give each "
            "example a weight in the data instead."
        )
    counts = np.bincount(data.train.y, minlength=data.num_classes)
    return (len(data.train) / (data.num_classes * counts)).astype(np.float32)
