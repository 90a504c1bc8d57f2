"""Search spaces by name, and the convolutional one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compress.core.errors import InputError
from compress.data import Dataset
from compress.measure import count_macs
from compress.plan.nesting import from_flat
from search.plan import SearchPlan
from search.spaces import SPACES, PythonSpace, Space, resolve_space
from search.spaces.cnn import CNN
from search.spaces.describe import describe_space
from search.study.study import list_first_choices
from tests.contracts.space import SpaceContract, ask, few, with_shape


class TestCNN(SpaceContract):
    name = "cnn"

    @pytest.fixture
    def data(self, digits: Dataset) -> Dataset:
        return digits


class TestCNNOnLargerColourImages(SpaceContract):
    name = "cnn"

    @pytest.fixture
    def data(self, digits: Dataset) -> Dataset:
        return with_shape(few(digits), (28, 28, 3))


def test_stages_follow_the_resolution(digits: Dataset) -> None:
    cnn = CNN()
    assert cnn.get_max_stages(digits) == 2
    assert cnn.get_max_stages(with_shape(few(digits), (28, 28, 1))) == 3
    assert cnn.get_max_stages(with_shape(few(digits), (4, 4, 1))) == 1


def test_baseline_macs_by_hand(digits: Dataset) -> None:
    cnn = SPACES["cnn"]
    model = cnn.build(ask(0, cnn.baseline(digits)), digits)
    stem, first = 64 * 9 * 1 * 24, 64 * 9 * (24 * 32 + 32 * 32)
    second, head = 16 * 9 * (32 * 64 + 64 * 64), 64 * 10
    assert count_macs(model).macs == stem + first + second + head


def test_residual_blocks_have_shortcuts(digits: Dataset) -> None:
    cnn = SPACES["cnn"]
    plain = cnn.baseline(digits)
    model = cnn.build(ask(0, plain | {"residual": True}), digits)
    names = {layer.name for layer in model.layers}
    # widths or resolution change at the first block of a stage only
    assert {name for name in names if name.endswith("_shortcut")} == {
        "stage1_block1_shortcut", "stage2_block1_shortcut",
    }  # fmt: skip
    assert sum(name.endswith("_add") for name in names) == 4


@pytest.mark.parametrize("name", ["cnn", "mobilenet", "resnet"])
def test_other_data_are_refused(name: str, blobs: Dataset, digits: Dataset) -> None:
    rule = f"Space '{name}' must have images of at least 4 x 4 pixels. Received: examples of shape"
    with pytest.raises(InputError, match=rf"{rule} \(4,\) \('blobs'\)"):
        SPACES[name].check(blobs)
    with pytest.raises(InputError, match=rf"{rule} \(3, 8, 1\)"):
        SPACES[name].check(with_shape(few(digits), (3, 8, 1)))


def test_spaces_by_name() -> None:
    assert SPACES.names() == ("cnn", "mlp", "mobilenet", "resnet")
    assert resolve_space("cnn") is SPACES["cnn"]
    own = resolve_space("tests.search.spaces.own:build")
    assert isinstance(own, PythonSpace)
    assert own.name == "tests.search.spaces.own:build"


class Least(Space):
    """A space with no more than it must have."""

    name = "mine"

    def check(self, data: Dataset) -> None:
        """Accepts all data."""

    def baseline(self, data: Dataset) -> dict[str, Any]:
        return {"layers": 1}

    def build(self, trial: Any, data: Dataset) -> Any:
        trial.suggest_int("layers", 1, 3)
        mlp = SPACES["mlp"]
        return mlp.build(ask(0, mlp.baseline(data)), data)


class Alike:
    """A space that inherits nothing, and has all that a space has."""

    def __init__(self) -> None:
        self._space = Least()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._space, name)


@pytest.mark.parametrize("kind", [Least, Alike])
def test_spaces_of_ones_own(kind: Any, blobs: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SPACES, "_entries", dict(SPACES._entries))
    SPACES.add("mine", kind())
    plan = from_flat(SearchPlan, {"space": "mine", "optimizers": ("adam",), "trials": 8})
    (first,) = list_first_choices(plan, blobs)
    assert first["layers"] == 1
    found = describe_space(resolve_space("mine"), blobs, samples=3)
    assert [item.name for item in found.parameters] == ["layers"]
    assert found.is_baseline


def test_unknown_names_list_the_choices() -> None:
    with pytest.raises(InputError) as caught:
        resolve_space("resnett")
    assert str(caught.value) == (
        "Unknown space 'resnett'. Did you mean 'resnet'? Choices: cnn, mlp, mobilenet, resnet. "
        "Or your own build(trial, data): package.module:function."
    )


def test_activations_have_their_limits() -> None:
    import keras

    from search.spaces._blocks import apply_activation

    inputs = keras.Input((3,))
    x = np.array([[-4.0, 3.0, 9.0]], np.float32)
    for name, expected in {"relu": [0, 3, 9], "relu6": [0, 3, 6], "hard_swish": [0, 3, 9]}.items():
        model = keras.Model(inputs, apply_activation(inputs, "x", name))
        np.testing.assert_allclose(model(x)[0], expected)
