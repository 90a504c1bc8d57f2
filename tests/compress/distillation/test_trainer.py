"""The trainer: one student forward, weights, teachers, tasks, going on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit, softmax

from compress import distill
from compress.core.device import Device
from compress.core.errors import InputError
from compress.data import Dataset, Preprocessing, Split
from compress.distillation.teachers import blend_logits
from compress.plan import DistillOptions, TrainSettings, WeightOptions
from compress.prune.weights import WeightPruner
from compress.train.steps import PROBE_EXAMPLES
from tests.same import same_arrays

ONE = TrainSettings(epochs=1, batch_size=64)
OWN_LOSS = "tests.compress.distillation.own_losses:Centred"
OWN_HINT = "tests.compress.distillation.own_losses:Spread"
TWO_HINTS = DistillOptions(feature_losses=("fitnets", OWN_HINT), feature_weight=0.01)


def mlp(data: Dataset, seed: int = 0, width: int = 12, activation: str | None = None) -> Any:
    """A network without batch statistics: examples do not see each other."""
    import keras

    keras.utils.set_random_seed(seed)
    inputs = keras.Input(data.input_shape)
    x = keras.layers.Dense(width, activation="tanh", name="hidden")(inputs)
    outputs = keras.layers.Dense(data.task.outputs, activation=activation, name="last")(x)
    return keras.Model(inputs, outputs, name=f"mlp{width}")


class Counting:
    """Builds a layer that counts its calls in training and in inference."""

    def __init__(self) -> None:
        import keras
        import tensorflow as tf

        counts = [tf.Variable(0), tf.Variable(0)]
        self.counts = counts

        class Layer(keras.layers.Layer):
            def call(self, x: Any, training: bool | None = None) -> Any:
                with tf.control_dependencies([counts[bool(training)].assign_add(1)]):
                    return tf.identity(x)

        self.layer = Layer()

    def read(self) -> tuple[int, int]:
        return int(self.counts[0].numpy()), int(self.counts[1].numpy())


def counted(small_cnn: Callable[..., Any]) -> tuple[Any, Counting]:
    import keras

    inner, counting = small_cnn(0), Counting()
    inputs = keras.Input((8, 8, 1))
    x = counting.layer(inputs)
    for layer in inner.layers[1:]:
        x = layer(x)
    return keras.Model(inputs, x), counting


@pytest.mark.parametrize("options", [DistillOptions(), TWO_HINTS], ids=["kd", "hints"])
def test_one_student_forward_a_step_and_one_teacher_pass_in_all(
    digits: Dataset, cpu: Device, small_cnn: Callable[..., Any], options: DistillOptions
) -> None:
    student, students = counted(small_cnn)
    teacher, teachers = counted(small_cnn)
    before = student.get_layer("bn").moving_mean.numpy()
    result = distill(student, teacher, digits, options, finetune=ONE, device=cpu)
    steps = len(digits.train) // 64
    assert result.training.steps == steps
    assert students.read()[1] == steps
    assert teachers.read()[1] == 0, "the teacher must run in inference mode"
    # the training data in batches of 256, one look at shapes, one at the validation data
    assert teachers.read()[0] <= -(-len(digits.train) // 256) + 3
    assert (student.get_layer("bn").moving_mean.numpy() != before).any()


@pytest.mark.parametrize("options", [{"augment": ("flip",)}, {"epoch_examples": 256}])
def test_live_teachers_run_once_a_step(
    digits: Dataset, cpu: Device, small_cnn: Callable[..., Any], options: dict[str, Any]
) -> None:
    """With augmentation, and where a cache would hold outputs that the training does not see."""
    student, students = counted(small_cnn)
    teacher, teachers = counted(small_cnn)
    settings = replace(ONE, **options)
    result = distill(student, teacher, digits, TWO_HINTS, finetune=settings, device=cpu)
    steps = result.training.steps
    assert result.cache == "off"
    assert students.read()[1] == steps
    # beside the steps: the loss before training, in batches, shapes, and the validation data
    first = -(-PROBE_EXAMPLES // ONE.batch_size)
    assert steps <= teachers.read()[0] <= steps + first + 2


def test_the_student_stays_a_plain_model(
    digits: Dataset, cpu: Device, small_cnn: Callable[..., Any], tmp_path: Path
) -> None:
    import keras

    student, teacher = small_cnn(0), small_cnn(1)
    shape = [(v.path, tuple(v.shape)) for v in student.variables]
    config = student.to_json()
    distill(student, teacher, digits, TWO_HINTS, finetune=ONE, device=cpu)
    assert [(v.path, tuple(v.shape)) for v in student.variables] == shape
    assert student.to_json() == config
    student.save(tmp_path / "student.keras")
    again = keras.models.load_model(tmp_path / "student.keras")
    x = digits.inputs("val")[:4]
    np.testing.assert_array_equal(again(x), student(x))


@pytest.mark.parametrize(
    ("loss", "hints"), [("kd", ()), ("dkd", ("fitnets",)), (OWN_LOSS, (OWN_HINT,))]
)
def test_an_example_of_weight_two_counts_like_two(
    blobs: Dataset, cpu: Device, loss: str, hints: tuple[str, ...]
) -> None:
    part = blobs.train.take(np.arange(12))
    weighted = replace(part, weight=np.array([1, 2, 1, 3] * 3, np.float32))
    repeated = part.take(np.repeat(np.arange(12), [1, 2, 1, 3] * 3))
    options = DistillOptions(loss=loss, feature_losses=hints, feature_weight=0.01)
    settings = TrainSettings(epochs=4, optimizer="sgd", learning_rate=0.05, batch_size=64)
    students = []
    for train_part in (weighted, repeated):
        data = replace(blobs, train=train_part)
        students.append(mlp(data))
        distill(students[-1], mlp(data, 1, 20), data, options, finetune=settings, device=cpu)
    start = mlp(blobs).get_weights()
    assert start
    for a, b, was in zip(*(s.get_weights() for s in students), start, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)
        assert np.abs(a - was).max() > 1e-3


def test_live_teachers_see_the_augmented_batch(
    digits: Dataset, cpu: Device, small_cnn: Callable[..., Any]
) -> None:
    """A copy of the teacher has nothing to learn from it, whatever the images became."""
    import keras

    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Flatten()(inputs)
    keras.utils.set_random_seed(0)
    teacher = keras.Model(inputs, keras.layers.Dense(10)(x))
    student = keras.models.clone_model(teacher)
    student.set_weights(teacher.get_weights())
    settings = replace(ONE, augment=("flip", "shift"), optimizer="sgd", learning_rate=0.1)
    options = DistillOptions(weight=1.0)
    result = distill(student, teacher, digits, options, finetune=settings, device=cpu)
    assert result.cache == "off"
    assert abs(result.training.history[0].loss) < 1e-5
    same_arrays(student.get_weights(), teacher.get_weights(), atol=1e-5)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "linear"])
def test_several_teachers_teach_the_mean_of_their_predictions(activation: str) -> None:
    logits = (np.random.default_rng(0).normal(size=(5, 3, 4)) * 3).astype(np.float32)
    got = np.asarray(blend_logits(logits, activation, 2.0), np.float64)
    each = logits.astype(np.float64)
    functions: dict[str, Any] = {
        "softmax": lambda z: softmax(z / 2, axis=-1),
        "sigmoid": lambda z: expit(z / 2),
        "linear": lambda z: z,
    }
    expected = functions[activation](each).mean(1)
    np.testing.assert_allclose(functions[activation](got), expected, rtol=1e-5, atol=1e-6)


def test_equal_teachers_are_like_one(blobs: Dataset, cpu: Device) -> None:
    students = []
    teacher, clone = mlp(blobs, 1, 20), mlp(blobs, 1, 20)
    for teachers in ([teacher], [teacher, clone]):
        students.append(mlp(blobs))
        distill(students[-1], teachers, blobs, finetune=ONE, device=cpu)
    same_arrays(students[0].get_weights(), students[1].get_weights(), atol=1e-5)


def test_class_orders_are_mapped_by_name_or_refused(blobs: Dataset, cpu: Device) -> None:
    """A teacher of (d, c, a, b) teaches (a, b, c) like the one whose rows stand in that order."""
    import keras

    teacher = mlp(blobs, 1, 20)
    inputs = keras.Input((4,))
    hidden = teacher.get_layer("hidden")(inputs)
    other = keras.layers.Dense(4, name="last")
    wide = keras.Model(inputs, other(hidden))
    kernel, bias = teacher.get_layer("last").get_weights()
    other.set_weights([kernel[:, [0, 2, 0, 1]], bias[[0, 2, 0, 1]]])
    students = []
    for who, names in ((teacher, None), (wide, ("d", "c", "a", "b"))):
        students.append(mlp(blobs))
        distill(students[-1], who, blobs, finetune=ONE, device=cpu, teacher_classes=[names])
    same_arrays(students[0].get_weights(), students[1].get_weights())
    with pytest.raises(InputError, match="must know every class of the data. Received: no 'b'"):
        distill(mlp(blobs), wide, blobs, device=cpu, teacher_classes=[("a", "c", "d", "e")])
    with pytest.raises(InputError, match=r"must output \(batch, 3\)"):
        distill(mlp(blobs), wide, blobs, device=cpu)


def task_data(kind: str) -> Dataset:
    rng = np.random.default_rng(0)
    direction = rng.normal(size=(4, 3))

    def part(count: int) -> Split:
        x = rng.normal(size=(count, 4)).astype(np.float32)
        values = x @ direction
        y: Any = {
            "binary": (values[:, 0] > 0).astype(np.int64),
            "multilabel": (values > 0).astype(np.int64),
            "regression": values.astype(np.float32),
        }[kind]
        return Split(x, y)

    names = ("no", "yes") if kind == "binary" else ("a", "b", "c")
    return Dataset(kind, part(600), part(200), part(200), names, Preprocessing(), kind=kind)


@pytest.mark.parametrize("kind", ["binary", "multilabel", "regression"])
def test_other_tasks_learn_from_the_teacher_alone(kind: str, cpu: Device) -> None:
    """With noise for labels and weight 1, the student learns what the teacher knows."""
    from compress.train import train

    data = task_data(kind)
    teacher = mlp(data, 1, 20)
    many = TrainSettings(epochs=40, batch_size=50, learning_rate=0.01)
    train(teacher, data, many, device=cpu)
    noise = data.train.y[np.random.default_rng(1).permutation(600)]
    blind = replace(data, train=replace(data.train, y=noise))
    student = mlp(data)
    result = distill(student, teacher, blind, DistillOptions(weight=1.0), finetune=many, device=cpu)
    name = data.task.qualities[0]
    assert result.teacher_val[name] > 0.9
    assert result.training.val[name] > 0.9


@pytest.mark.parametrize("kind", ["binary", "multilabel"])
def test_sigmoid_heads_do_not_matter(kind: str, cpu: Device) -> None:
    data = task_data(kind)
    students = []
    for activation in (None, "sigmoid"):
        student, teacher = mlp(data, 0, 12, activation), mlp(data, 1, 20, activation)
        distill(student, teacher, data, finetune=ONE, device=cpu)
        students.append(student)
        assert student.get_layer("last").activation.__name__ == (activation or "linear")
    same_arrays(students[0].get_weights(), students[1].get_weights())


@pytest.mark.slow
def test_distillation_goes_on_with_masks_and_projections(
    digits: Dataset, cpu: Device, small_cnn: Callable[..., Any], tmp_path: Path
) -> None:
    """Interrupted after epoch 2 of 4 while masks are updated: the same to the last bit."""
    settings = TrainSettings(epochs=4, batch_size=64)
    weights = WeightOptions(sparsity=0.6, scope="layer", sparsity_end="75%")

    def run(student: Any, **given: Any) -> Any:
        pruner = WeightPruner(weights)
        try:
            return distill(
                student, small_cnn(1), digits, TWO_HINTS, finetune=settings, device=cpu,
                hooks=[pruner], **given,
            )  # fmt: skip
        finally:
            pruner.strip()

    def stop(epoch: int, *_: Any) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    whole, resumed = small_cnn(0), small_cnn(5)
    expected = run(whole)
    file = tmp_path / "c.npz"
    with pytest.raises(KeyboardInterrupt):
        run(small_cnn(0), checkpoint=file, on_epoch=stop)
    result = run(resumed, checkpoint=file)
    assert [r.loss for r in result.training.history] == [r.loss for r in expected.training.history]
    same_arrays(whole.get_weights(), resumed.get_weights())
    zeros = np.mean(whole.get_layer("mid").kernel.numpy() == 0)
    assert zeros == pytest.approx(0.6, abs=0.01)
    with pytest.raises(InputError, match="A checkpoint must belong to the training"):
        distill(
            small_cnn(0), small_cnn(2), digits, TWO_HINTS, finetune=settings, device=cpu,
            checkpoint=file,
        )  # fmt: skip


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(blobs: Dataset, cpu: Device, policy: str) -> None:
    import keras

    inputs = keras.Input((4,))
    x = keras.layers.Dense(8, activation="relu", dtype=policy, name="hidden")(inputs)
    student = keras.Model(inputs, keras.layers.Dense(3, dtype="float32")(x))
    settings = TrainSettings(epochs=30, optimizer="adam", learning_rate=0.01, batch_size=32)
    options = DistillOptions(feature_losses=("fitnets", OWN_HINT), weight=0.1)
    result = distill(
        student, mlp(blobs, 1, 20), blobs, options,
        finetune=settings, device=replace(cpu, policy=policy),
    )  # fmt: skip
    assert result.training.val["accuracy"] > 0.9


@pytest.mark.slow
def test_xla_gives_the_same(blobs: Dataset, cpu: Device) -> None:
    options = DistillOptions(loss=OWN_LOSS, feature_losses=("fitnets", OWN_HINT))
    students = []
    for jit in (False, True):
        students.append(mlp(blobs))
        result = distill(
            students[-1],
            mlp(blobs, 1, 20),
            blobs,
            options,
            finetune=ONE,
            device=replace(cpu, jit=jit),
        )
        assert result.training.notes == ()
    same_arrays(students[0].get_weights(), students[1].get_weights(), atol=1e-5)


def test_random_layers_in_the_student_are_noted(
    digits: Dataset, cpu: Device, small_cnn: Callable[..., Any]
) -> None:
    import keras

    inner = small_cnn(0)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.RandomTranslation(0.1, 0.1, name="moved")(inputs)
    for layer in inner.layers[1:]:
        x = layer(x)
    result = distill(keras.Model(inputs, x), small_cnn(1), digits, finetune=ONE, device=cpu)
    assert "at random (layer 'moved')" in result.notes[-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature must be above 0, at most 1e30. Received: 0\\."),
        ({"temperature": 1e31}, "temperature must be above 0, at most 1e30. Received: 1e"),
        ({"feature_weight": -1.0}, "feature_weight must be at least 0, at most 1e30. Received: -1"),
        ({"temperature": "hot"}, "temperature must be a number. Received: 'hot'"),
        ({"weight": "0:0.5@20%"}, "weight must be a number. Received: '0:0.5@20%'"),
        ({"weight": 1.5}, r"distill_weight must be in \[0, 1\]. Received: 1.5"),
        ({"loss": "kl"}, "Unknown distillation loss 'kl'"),
        ({"feature_losses": ("fitnet",)}, "Unknown feature loss 'fitnet'.*Did you mean 'fitnets'"),
        (
            {"feature_losses": ("fitnets",), "feature_pairs": ("a",)},
            "student_layer=teacher_layer. Received: 'a'",
        ),
        ({"feature_pairs": ("a=b",)}, "feature_pairs must come with feature_losses"),
        ({"teacher": "auto,a.keras"}, "teacher must be auto, none, or files alone"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DistillOptions(**options)


def test_bad_models(
    digits: Dataset, blobs: Dataset, cpu: Device, small_cnn: Callable[..., Any]
) -> None:
    student, teacher = small_cnn(0), small_cnn(1)
    pairs = replace(TWO_HINTS, feature_pairs=("rely=relu",))
    with pytest.raises(
        InputError, match="Unknown layer of model 'small_cnn' 'rely'.*Did you mean 'relu'"
    ):
        distill(student, teacher, digits, pairs, device=cpu)
    with pytest.raises(InputError, match="must take inputs of the data's shape"):
        distill(student, mlp(blobs), digits, device=cpu)
    with pytest.raises(InputError, match="another model than the student"):
        distill(student, student, digits, device=cpu)
    with pytest.raises(InputError, match="one entry a teacher. Received: 2 for 1"):
        distill(student, teacher, digits, device=cpu, teacher_classes=[None, None])
