"""One interpreter of programs: layers, names, numbers and pairs of models as its values."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from compress.model.program import Node, Program
from compress.model.recording import record_program

RNG = np.random.default_rng


def branches() -> Any:
    import keras

    x = keras.Input((8, 8, 2))
    left = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    right = keras.layers.DepthwiseConv2D(3, padding="same")(x)
    y = keras.layers.Concatenate()([left, right, x])
    y = keras.layers.BatchNormalization()(y)
    y = keras.layers.Add()([y, y])  # one tensor twice
    return keras.Model(x, keras.layers.Dense(3)(keras.layers.Flatten()(y)))


def shared() -> Any:
    import keras

    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    twice = keras.layers.Dense(5, activation="tanh")
    return keras.Model({"a": a, "b": b}, keras.layers.Subtract()([twice(a), twice(b)]))


def nested() -> Any:
    import keras

    inner_in = keras.Input((6,))
    h = keras.layers.Dense(4, activation="relu")(inner_in)
    inner = keras.Model(inner_in, [h, keras.layers.Dense(2)(h)])
    outer = keras.Sequential([keras.Input((6,)), keras.layers.Dense(6), keras.layers.ReLU()])
    x = keras.Input((6,))
    first, second = inner(outer(x))
    third, _ = inner(x)  # called again, and one of its outputs is not used
    return keras.Model(x, [keras.layers.Concatenate()([first, third]), second])


def several_outputs() -> Any:
    import keras

    x = keras.Input((5, 3))
    sequence, state_h, state_c = keras.layers.LSTM(
        4, return_sequences=True, return_state=True
    )(x)  # fmt: skip
    pooled = keras.layers.GlobalAveragePooling1D()(sequence)
    # the input itself is an output, and one output stands there twice
    return keras.Model(x, {"p": pooled, "again": pooled, "h": state_h + state_c, "x": x})


def raw_operations() -> Any:
    import keras
    from keras import ops

    x = keras.Input((4, 6))
    parts = ops.split(x, 2, axis=-1)
    y = ops.concatenate([parts[1], ops.exp(-parts[0]) * 2.0], axis=-1)
    y = ops.transpose(ops.reshape(y, (-1, 6, 4)), (0, 2, 1)) / (1.0 + ops.abs(x))
    return keras.Model(x, ops.max(y, axis=1))


def keyword_tensors() -> Any:
    import keras

    x, memory = keras.Input((4, 6)), keras.Input((3, 6))
    attended = keras.layers.MultiHeadAttention(2, 3)(x, value=memory, key=memory)
    state = keras.layers.Dense(5)(keras.layers.Flatten()(memory))
    out = keras.layers.GRU(5)(attended, initial_state=state)
    return keras.Model([x, memory], keras.layers.Dot(axes=-1)([out, state]))


def subclassed() -> Any:
    import keras

    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = keras.layers.Dense(6), keras.layers.Dense(6)
            self.drop = keras.layers.Dropout(0.5)

        def call(self, x: Any) -> Any:
            return keras.ops.relu(self.drop(self.first(x))) + self.second(x)

    net = Net()
    net(np.zeros((1, 6), np.float32))
    return net


NETS: list[Callable[[], Any]] = [
    branches, shared, nested, several_outputs, raw_operations, keyword_tensors, subclassed,
]  # fmt: skip


def made(net: Callable[[], Any], seed: int = 0) -> tuple[Any, Program]:
    """Returns a net with random weights (variances too), and its program."""
    import keras

    keras.utils.set_random_seed(seed)
    model = net()
    rng = RNG(seed)
    model.set_weights([rng.uniform(0.2, 0.9, w.shape) for w in model.get_weights()])
    return model, record_program(model)


def drawn(program: Program, seed: int = 1) -> list[Any]:
    rng = RNG(seed)
    return [rng.normal(size=(3, *tensor.shape[1:])).astype(np.float32) for tensor in program.inputs]


def packed(program: Program, flat: Sequence[Any]) -> Any:
    import keras

    return keras.tree.pack_sequence_as(program.input_structure, list(flat))


def call_layer(node: Node, given: list[Any]) -> list[Any]:
    import keras

    args, kwargs = node.fill_arguments(given)
    return list(keras.tree.flatten(node.operation(*args, **kwargs)))


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.__name__)
def test_layers_as_the_handler_give_what_the_model_gives(net: Callable[[], Any]) -> None:
    """The model's own output, by every way through nested models, and by `run`."""
    import keras

    model, program = made(net)
    x = drawn(program)
    wanted = keras.tree.flatten(model(packed(program, x), training=False))
    tensors = [keras.ops.convert_to_tensor(value) for value in x]
    for found in (
        program.interpret(call_layer, tensors),  # nested models entered
        program.interpret(call_layer, tensors, nested=call_layer),  # handed over whole
        program.run(x),
    ):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_nested_models_are_entered_or_handed_over() -> None:
    _, program = made(nested)
    inside: list[str] = []
    outside: list[str] = []

    def call(node: Node, given: list[Any]) -> list[None]:
        inside.append(node.name)
        return [None] * len(node.outputs)

    def whole(node: Node, given: list[Any]) -> list[None]:
        assert node.body is not None
        outside.append(node.name)
        return [None] * len(node.outputs)

    program.interpret(call, [None])
    # two layers of the Sequential, twice two of the inner model, the Concatenate
    assert inside == [node.name for node in program.walk()]
    assert len(inside) == 2 + 2 * 2 + 1
    inside.clear()
    program.interpret(call, [None], nested=whole)
    assert len(outside) == 3
    assert inside == [program.nodes[-1].name]


def test_a_value_lives_until_its_last_use() -> None:
    """Of a chain of ten calls no more than one result is held; a skipped one waits."""
    import keras

    class Value:
        pass

    x = keras.Input((4,))
    y = first = keras.layers.Dense(4)(x)
    for _ in range(10):
        y = keras.layers.Dense(4)(y)
    model = keras.Model(x, keras.layers.Add()([y, first]))
    alive: list[weakref.ref[Value]] = []
    counts = []

    def call(node: Node, given: list[Any]) -> list[Value]:
        counts.append(sum(ref() is not None for ref in alive))
        made = [Value() for _ in node.outputs]
        alive.extend(map(weakref.ref, made))
        return made

    record_program(model).interpret(call, [Value()])
    # before the first call none; then the first result, and with it what is fed at each call
    assert counts == [0, 1, *[2] * 10]


@pytest.mark.parametrize("net", [branches, nested, keyword_tensors], ids=lambda net: net.__name__)
def test_two_models_run_in_lockstep(net: Callable[[], Any]) -> None:
    """What repairs a model needs: each call of both, with the inputs of both, in one pass."""
    import keras

    (dense, program), (other, twin) = made(net, 0), made(net, 1)
    mate = dict(zip(map(id, program.walk()), twin.walk(), strict=True))

    def both(node: Node, given: list[Any]) -> list[Any]:
        ours, theirs = zip(*given, strict=True)
        return list(
            zip(call_layer(node, list(ours)), call_layer(mate[id(node)], list(theirs)), strict=True)
        )

    x = drawn(program)
    tensors = [keras.ops.convert_to_tensor(value) for value in x]
    found = program.interpret(both, [(tensor, tensor) for tensor in tensors])
    for place, model in enumerate((dense, other)):
        wanted = keras.tree.flatten(model(packed(program, x), training=False))
        for pair, value in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(np.asarray(pair[place]), np.asarray(value))


def test_a_handler_must_return_all_outputs() -> None:
    _, program = made(several_outputs)
    with pytest.raises(ValueError, match="zip"):
        program.interpret(lambda node, given: [0], [0])
