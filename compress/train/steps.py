"""Many training steps in one compiled function, on data in memory."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.core.arrays import mapped
from compress.core.device import Device
from compress.core.errors import InputError
from compress.data import Dataset
from compress.data.tasks import VOID, has_classes, has_positions
from compress.model.logits import LogitsView
from compress.train.objective import Batch, Step

if TYPE_CHECKING:
    from compress.train.loop import Training

PROBE = 256
"""Training examples on which the loss before training is taken, at most."""
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the training at which it is taken: temperature and weights may change."""
REACH = 8
"""Images are shifted by up to 1 / REACH of their height and width."""


class Steps:
    """Compiled function that runs steps of (steps, batch) indices and returns the sum of their
    losses.

    A step's loss is the objective's and what the model adds itself (regularizers, `add_loss`).

    Args:
        training: What it is of.
        view: The model, as a function to logits.
        variables: What is trained.
        optimizer: Built for them.
        step: The int64 variable that counts steps.
        own: Makes each step in place of the objective's loss; see `Objective.step`.
    """

    def __init__(
        self,
        training: Training,
        *,
        view: LogitsView,
        variables: list[Any],
        optimizer: Any,
        step: Any,
        own: Step | None = None,
    ) -> None:
        import tensorflow as tf

        data, settings, objective = training.data, training.settings, training.objective
        device, seed, total_steps = training.device, training.seed, training.total_steps
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
            # the names of ours cannot collide: an objective's rows are "teacher..."
            return {
                "images": mapped(lambda values: tf.gather(values, batch), images),
                "labels": mapped(lambda values: tf.gather(values, batch), labels),
                "weights": tf.gather(weights, batch),
                **{name: read(batch) for name, read in rows.items()},
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
            inputs = scaling(augmented(found["images"], *draw))
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

        self._costs, self._batch = costs, training.batch
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
        traced: Callable[[Any], Any] = tf.function(
            run, [tf.TensorSpec((None, None), tf.int32)], autograph=False
        )
        return traced

    def first_loss(self, count: int) -> float:
        """Return the loss of the untrained model, in inference mode.

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
        """Run the steps; if XLA cannot compile them, without it from then on."""
        import tensorflow as tf

        try:
            return self._run(index)
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError) as error:
            if not self._jit:
                raise
            # compilation fails before the first step runs, so nothing is done twice
            self._jit = False
            self.notes.append(f"trained without XLA: {str(error).splitlines()[0]}")
            self._run = self._trace()
            return self._run(index)


def _held(array: npt.NDArray[Any], device: Device) -> Any:
    """Return examples as a tensor on the device; a memory-mapped file is not copied on the CPU."""
    import tensorflow as tf

    if isinstance(array, np.memmap) and device.kind == "cpu":
        # what TensorFlow cannot take as it lies there is copied after all
        with contextlib.suppress(BufferError, TypeError, ValueError, tf.errors.OpError):
            return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
    return tf.constant(array)


def _reader(array: npt.NDArray[Any]) -> Callable[[Any], Any]:
    """Return a function from indices to rows; an array on disk is read row by row."""
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
    """Return the weight of each training example, (n,).

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
    """Return the weight of each class's examples, (classes,), mean 1 over the examples.

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


def check_augment(names: Sequence[str], data: Dataset) -> None:
    """Check that there are images to augment, and labels that can be transformed with them.

    Raises:
        InputError: Augmentation is asked for and examples are no (H, W, C), or labels by position
            cannot follow.
    """
    if not names:
        return
    shape, positions = data.input_shape, data.task.output_shape[:-1]
    if len(shape) != 3:
        raise InputError(
            f"augment must be used on images (height, width, channels). Received: examples of "
            f"shape {shape}. Leave augment empty."
        )
    if not positions or data.gives_back:
        return
    if positions != shape[:2]:
        raise InputError(
            "augment must move labels with their images: they must have the images' height and "
            f"width. Received: labels at {positions} positions, images of {shape[:2]}."
        )
    if "shift" in names and not has_positions(data.kind):
        raise InputError(
            "augment must leave no positions without a label: 'shift' needs classes, of which one "
            f"may be void. Received: a {data.kind} task. Use 'flip' alone."
        )


def moved(labels: Any, data: Dataset, names: Sequence[str], seed: int, step: Any) -> Any:
    """Return labels by position transformed like their images; other labels are unchanged.

    Args:
        labels: (batch, ...), as the data set holds them; what comes in at the edges is void.
        data: They are of.
        names, seed, step: See `augmented`.
    """
    if not names or not data.task.output_shape[:-1]:
        return labels
    if has_positions(data.kind):
        return augmented(labels[..., None], names, seed, step, fill=VOID)[..., 0]
    return augmented(labels, names, seed, step)


def augmented(images: Any, names: Sequence[str], seed: int, step: Any, *, fill: int = 0) -> Any:
    """Return the randomly augmented batch; equal seeds and steps give equal changes.

    Args:
        images: (batch, H, W, C), as stored, any type.
        names: Of "flip" (left to right, every second image on average) and "shift" (by up to
            an eighth of height and width).
        seed: Of the training.
        step: int64 scalar tensor.
        fill: What comes in at the edges.

    Returns:
        Images of the same shape and type.
    """
    import tensorflow as tf

    if not names:
        return images
    keys = tf.stack([tf.cast(seed, tf.int64), tf.cast(step, tf.int64)])
    batch, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
    if "flip" in names:
        chosen = tf.random.stateless_uniform((batch, 1, 1, 1), keys) < 0.5
        images = tf.where(chosen, tf.reverse(images, axis=[2]), images)
    if "shift" in names:
        high, wide = max(1, height // REACH), max(1, width // REACH)
        padded = tf.pad(images, ((0, 0), (high, high), (wide, wide), (0, 0)), constant_values=fill)
        for axis, reach, size in ((1, high, height), (2, wide, width)):
            start = tf.random.stateless_uniform(
                (batch, 1), keys + axis, 0, 2 * reach + 1, dtype=tf.int32
            )
            places = start + tf.range(size)  # (batch, size)
            padded = tf.gather(padded, places, axis=axis, batch_dims=1)
        images = padded
    return images
