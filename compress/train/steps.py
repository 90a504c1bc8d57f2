"""Compiled training steps on data in memory, class weights, and augmentation."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.core.arrays import map_columns
from compress.core.device import Device
from compress.core.errors import InputError
from compress.core.lazy_modules import tf
from compress.data import Dataset
from compress.data.tasks import VOID, has_classes, has_positions
from compress.model.logits import LogitsView
from compress.train.objective import Batch, Step

if TYPE_CHECKING:
    from compress.train.loop import Training

PROBE_EXAMPLES = 256
"""Maximum number of training examples used to measure the loss before training."""
SHIFT_DIVISOR = 8
"""Images are shifted by up to 1 / SHIFT_DIVISOR of their height and width."""


class Steps:
    """Compiled function from (steps, batch) indices to the sum of the losses of these steps.

    The loss of a step is that of the objective plus the model's own terms (regularizers,
    `add_loss`).

    Args:
        training: The training.
        view: Function from model inputs to logits, and to features if the objective needs any.
        variables: Variables to train.
        optimizer: Optimizer built for them.
        step: The int64 variable that counts steps.
        own_step: Function that replaces the objective's loss and the update; see `Objective.step`.
    """

    def __init__(
        self,
        training: Training,
        *,
        view: LogitsView,
        variables: list[Any],
        optimizer: Any,
        step: Any,
        own_step: Step | None = None,
    ) -> None:
        data, settings, objective = training.data, training.settings, training.objective
        device, seed = training.device, training.seed
        self.notes: list[str] = []
        # the user's own step may contain operations that XLA cannot compile
        self._jit, self._step = device.jit and own_step is None, step
        scales_loss = device.policy == "mixed_float16"
        images = map_columns(lambda values: _to_tensor(values, device), data.train.x)
        labels = map_columns(lambda values: _to_tensor(values, device), data.train.y)
        rows = {name: _build_reader(array) for name, array in objective.arrays().items()}
        per_example = compute_example_weights(data, settings.class_weights)
        weights, mean_weight = tf.constant(per_example), float(per_example.mean())
        weighted = bool((per_example != 1).any())
        scaling = data.preprocess.to_graph_function()

        def gather(batch: Any) -> dict[str, Any]:
            # these names cannot collide with the objective's rows, named "teacher..."
            return {
                "images": map_columns(lambda values: tf.gather(values, batch), images),
                "labels": map_columns(lambda values: tf.gather(values, batch), labels),
                "weights": tf.gather(weights, batch),
                **{name: read(batch) for name, read in rows.items()},
            }

        def compute_loss(arrays: Mapping[str, Any], output: Any) -> Any:
            logits, features = output if objective.feature_layers else (output, {})
            batch = Batch(
                labels=arrays["labels"],
                logits=logits,
                features=features,
                given=arrays,
                weights=arrays["weights"],
            )
            return tf.reduce_mean(objective.loss(batch) * arrays["weights"]) / mean_weight

        def update(gathered: Mapping[str, Any], now: Any) -> Any:
            draw = (settings.augment, seed, now)
            inputs = scaling(augment_images(gathered["images"], *draw))
            targets = inputs if data.gives_back else augment_labels(gathered["labels"], data, *draw)
            if own_step is not None:
                return own_step(inputs, targets, gathered["weights"] if weighted else None)
            arrays = {**gathered, "labels": targets, **objective.live(inputs)}
            with tf.GradientTape() as tape:
                output, added = view.call_with_losses(inputs, training=True)
                loss = compute_loss(arrays, output) + added
                target = optimizer.scale_loss(loss) if scales_loss else loss
            gradients = tape.gradient(target, [variable.value for variable in variables])
            optimizer.apply(gradients, variables)
            return loss

        def measure_loss(chosen: Any) -> float:
            rows_of_batch = gather(chosen)
            inputs = scaling(rows_of_batch["images"])
            targets = inputs if data.gives_back else rows_of_batch["labels"]
            arrays = {**rows_of_batch, "labels": targets, **objective.live(inputs)}
            output, added = view.call_with_losses(inputs, training=False)
            return float(compute_loss(arrays, output) + added)

        self._measure_loss, self._batch = measure_loss, training.part_size
        self._gather, self._update = gather, update
        self._run = self._trace()

    def _trace(self) -> Callable[[Any], Any]:
        """Return a compiled function that trains on each row of indices and sums the losses."""
        update = (
            tf.function(self._update, jit_compile=True, autograph=False)
            if self._jit
            else self._update
        )

        def run_step(position: Any, total: Any, index: Any) -> tuple[Any, Any, Any]:
            total += update(self._gather(index[position]), self._step.value())
            self._step.assign_add(1)
            return position + 1, total, index

        def run(index: Any) -> Any:
            start = (tf.constant(0), tf.constant(0.0), index)
            return tf.while_loop(
                lambda position, *_: position < tf.shape(index)[0], run_step, start
            )[1]

        # no AutoGraph: it cannot read this source on Python 3.13
        traced: Callable[[Any], Any] = tf.function(
            run, [tf.TensorSpec((None, None), tf.int32)], autograph=False
        )
        return traced

    def measure_first_loss(self, count: int) -> float:
        """Return the loss of the model with its current weights, in inference mode.

        Args:
            count: Number of training examples; a subset of them is used.

        Returns:
            The mean over examples. Infinite or NaN if the model's outputs are.
        """
        chosen = np.linspace(0, count - 1, min(PROBE_EXAMPLES, count)).astype(np.int32)
        # batches no larger than in training, which were chosen to fit into memory
        batches = np.array_split(chosen, math.ceil(len(chosen) / self._batch))
        return sum(len(batch) * self._measure_loss(batch) for batch in batches) / len(chosen)

    def __call__(self, index: Any) -> Any:
        """Run the steps; if XLA cannot compile them, disable it from then on.

        Args:
            index: Indices of training examples, (steps, batch), int32.
        """
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


def _to_tensor(array: npt.NDArray[Any], device: Device) -> Any:
    """Return examples as a tensor on the device; on the CPU a memory-mapped file is not copied."""
    if isinstance(array, np.memmap) and device.kind == "cpu":
        # arrays with a layout that TensorFlow does not accept are copied
        with contextlib.suppress(BufferError, TypeError, ValueError, tf.errors.OpError):
            return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
    return tf.constant(array)


def _build_reader(array: npt.NDArray[Any]) -> Callable[[Any], Any]:
    """Return a function from indices to rows; an array on disk is read row by row."""
    if not isinstance(array, np.memmap):
        tensor = tf.constant(array)
        return lambda batch: tf.gather(tensor, batch)
    kind, shape = tf.as_dtype(array.dtype), array.shape[1:]

    def read(batch: Any) -> Any:
        rows = tf.numpy_function(lambda index: array[index], [batch], kind, stateful=False)
        rows.set_shape((batch.shape[0], *shape))
        return rows

    return read


def compute_example_weights(data: Dataset, mode: str) -> npt.NDArray[np.float32]:
    """Return the weight of each training example, (n,).

    It is the product of the data's own weight and the class weight.

    Args:
        data: Data set; classes are counted in the training part.
        mode: "none", or "balanced": n / (classes * n_c), as in scikit-learn.

    Raises:
        InputError: "balanced" is used with labels that are not class indices.
    """
    data_weights = data.train.weight
    weights = np.ones(len(data.train)) if data_weights is None else data_weights.astype(np.float64)
    factors = compute_class_weights(data, mode)[data.train.y] if mode == "balanced" else 1.0
    return (weights * factors).astype(np.float32)


def compute_class_weights(data: Dataset, mode: str) -> npt.NDArray[np.float32]:
    """Return the weight of each class, (classes,), with mean 1 over the examples.

    Args:
        data: Data set; classes are counted in the training part.
        mode: "none" (all 1) or "balanced": n / (classes * n_c), as in scikit-learn.

    Raises:
        InputError: "balanced" is used with labels that are not class indices.
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
    """Check that augmentation applies to the examples and their labels.

    Args:
        names: Names of the augmentations; empty: nothing is checked.
        data: Data set.

    Raises:
        InputError: The examples are not images (H, W, C), or labels by position cannot be
            transformed with them.
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


def augment_labels(labels: Any, data: Dataset, names: Sequence[str], seed: int, step: Any) -> Any:
    """Return labels by position transformed like their images; other labels are unchanged.

    Args:
        labels: (batch, ...), as stored in the data set; new positions at the edges are void.
        data: Data set of the labels.
        names, seed, step: See `augment_images`.
    """
    if not names or not data.task.output_shape[:-1]:
        return labels
    if has_positions(data.kind):
        return augment_images(labels[..., None], names, seed, step, fill=VOID)[..., 0]
    return augment_images(labels, names, seed, step)


def augment_images(
    images: Any, names: Sequence[str], seed: int, step: Any, *, fill: int = 0
) -> Any:
    """Return the randomly augmented batch; equal seeds and steps give equal results.

    Args:
        images: (batch, H, W, C), as stored, any type.
        names: Names among "flip" (left to right, with probability 0.5) and "shift" (by up to an
            eighth of height and width).
        seed: Seed of the training.
        step: int64 scalar tensor.
        fill: Value of new pixels at the edges.

    Returns:
        Images of the same shape and type.
    """
    if not names:
        return images
    keys = tf.stack([tf.cast(seed, tf.int64), tf.cast(step, tf.int64)])
    batch, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
    if "flip" in names:
        chosen = tf.random.stateless_uniform((batch, 1, 1, 1), keys) < 0.5
        images = tf.where(chosen, tf.reverse(images, axis=[2]), images)
    if "shift" in names:
        high, wide = max(1, height // SHIFT_DIVISOR), max(1, width // SHIFT_DIVISOR)
        padded = tf.pad(images, ((0, 0), (high, high), (wide, wide), (0, 0)), constant_values=fill)
        for axis, reach, size in ((1, high, height), (2, wide, width)):
            start = tf.random.stateless_uniform(
                (batch, 1), keys + axis, 0, 2 * reach + 1, dtype=tf.int32
            )
            positions = start + tf.range(size)  # (batch, size)
            padded = tf.gather(padded, positions, axis=axis, batch_dims=1)
        images = padded
    return images
