"""The interface of search spaces, and spaces with declared choices.

A space samples choices from a trial and builds a Keras model from them. Some spaces also compute
the costs of choices from shapes alone.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from compress.core.lazy_modules import keras
from compress.data import Dataset
from compress.data.tasks import Regression, Task

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import BaseTrial
Chosen = dict[str, Any]
"""Complete choices: name -> value, without inactive choices."""


class Space(ABC):
    """A search space.

    User-defined spaces inherit from it and must define `check`, `baseline` and `build`.

    Attributes:
        name: Name on the command line.
    """

    name: str

    @abstractmethod
    def check(self, data: Dataset) -> None:
        """Raise InputError if the space does not support this data.

        Args:
            data: The data of the search.
        """

    @abstractmethod
    def baseline(self, data: Dataset) -> dict[str, Any]:
        """Return sensible choices to try first, as the reference for a search; {}: unknown.

        Args:
            data: The data of the search.
        """

    def smallest(self, data: Dataset) -> dict[str, Any] | None:
        """Return the complete choices with the fewest MACs; None: unknown.

        Args:
            data: The data of the search.
        """
        return None

    def largest(self, data: Dataset) -> dict[str, Any] | None:
        """Return the complete choices with the most MACs; None: unknown.

        Args:
            data: The data of the search.
        """
        return None

    def ladder(self, data: Dataset, steps: int) -> list[dict[str, Any]]:
        """Return complete choices from the smallest model up to the baseline.

        Args:
            data: The data of the search.
            steps: Maximum number of choices, at least 0.

        Returns:
            Distinct choices in ascending order of cost, with the smallest model, without the
            baseline; [] if the smallest model is unknown.
        """
        return []

    @abstractmethod
    def build(self, trial: BaseTrial, data: Dataset) -> keras.Model:
        """Sample all choices from `trial` and build the untrained model.

        The model has the input shape `data.input_shape` and ends in `head`.

        Args:
            trial: An Optuna trial, or a `FixedTrial` with given choices.
            data: The data of the search.
        """

    def count(self, chosen: dict[str, Any], data: Dataset) -> tuple[int, int] | None:
        """Return MACs and parameters of complete choices without building them; None: unknown.

        Args:
            chosen: Complete choices.
            data: The data of the search.
        """
        return None


class DeclaredSpace(Space):
    """A space with declared choices, which are counted and bounded without Keras.

    The choices with the fewest and the most MACs must also have the fewest and the most parameters
    (ties are allowed, for example through normalization); subclasses must ensure this.
    """

    @abstractmethod
    def choices(self, data: Dataset) -> tuple[Choice, ...]:
        """Return the choices in sampling order; a condition refers to an earlier choice.

        Args:
            data: The data of the search.
        """

    @abstractmethod
    def assemble(self, chosen: Chosen, data: Dataset) -> keras.Model:
        """Build the untrained model of complete choices.

        Args:
            chosen: Complete choices.
            data: The data of the search.
        """

    def smallest(self, data: Dataset) -> dict[str, Any]:
        """Return the complete choices with the fewest MACs and parameters."""
        return complete_choices(self.choices(data), lambda choice: choice.least)

    def largest(self, data: Dataset) -> dict[str, Any]:
        """Return the complete choices with the most MACs and parameters."""
        return complete_choices(self.choices(data), lambda choice: choice.most)

    def ladder(self, data: Dataset, steps: int) -> list[dict[str, Any]]:
        """Return choices that move through the values of each number in equal steps.

        See `Space.ladder`.
        """
        choices, baseline = self.choices(data), self.baseline(data)
        rungs: list[Chosen] = []
        for step in range(steps):
            chosen = interpolate_choices(choices, baseline, step / steps)
            if chosen != baseline and chosen not in rungs:
                rungs.append(chosen)
        return rungs

    def build(self, trial: BaseTrial, data: Dataset) -> keras.Model:
        """See `Space.build`."""
        return self.assemble(ask_choices(trial, self.choices(data)), data)


class DrawnSpace(DeclaredSpace):
    """A space whose networks are built by functions for both Keras tensors and `ShapeTensor`."""

    input_name = "image"
    """Name of the model's input."""

    @abstractmethod
    def net(self, x: Any, chosen: Chosen, data: Dataset) -> Any:
        """Return the output tensor of complete choices for an input tensor.

        Args:
            x: A Keras tensor or a `ShapeTensor`.
            chosen: Complete choices.
            data: The data of the search.
        """

    def assemble(self, chosen: Chosen, data: Dataset) -> keras.Model:
        """See `DeclaredSpace.assemble`."""
        inputs = keras.Input(data.input_shape, name=self.input_name)
        return keras.Model(inputs, self.net(inputs, chosen, data), name=self.name)

    def count(self, chosen: Chosen, data: Dataset) -> tuple[int, int]:
        """See `Space.count`."""
        costs = self.net(ShapeTensor(tuple(data.input_shape)), chosen, data).costs
        return costs.macs, costs.params


@dataclass
class NetworkCosts:
    """The accumulated costs of a network.

    Attributes:
        macs: Multiply-accumulates, counted like `compress.measure.count_macs`.
        params: Number of parameters, counted likewise.
    """

    macs: int = 0
    params: int = 0


@dataclass(frozen=True)
class ShapeTensor:
    """A tensor without values, which accumulates the costs of a network.

    Attributes:
        shape: Shape of one example, channels last.
        costs: Costs of the network so far.
    """

    shape: tuple[int, ...]
    costs: NetworkCosts = field(default_factory=NetworkCosts)

    def apply_conv(self, width: int, kernel: int, stride: int, bias: bool) -> ShapeTensor:
        """Apply a padded convolution to (height, width, channels).

        Args:
            width: Number of output channels.
            kernel: Size of the kernel.
            stride: Stride of the kernel.
            bias: Whether there is a bias.
        """
        *size, channels = self.apply_pooling(stride).shape
        weights = kernel**2 * channels * width
        self._add_costs(math.prod(size) * weights, weights, width if bias else 0)
        return ShapeTensor((*size, width), self.costs)

    def apply_depthwise(self, kernel: int, stride: int) -> ShapeTensor:
        """Apply a padded depthwise convolution without a bias.

        Args:
            kernel: Size of the kernel.
            stride: Stride of the kernel.
        """
        output = self.apply_pooling(stride)
        self._add_costs(math.prod(output.shape) * kernel**2, kernel**2 * self.shape[-1])
        return output

    def apply_dense(self, width: int, bias: bool) -> ShapeTensor:
        """Apply a dense layer.

        Args:
            width: Number of outputs.
            bias: Whether there is a bias.
        """
        *size, columns = self.shape
        self._add_costs(math.prod(size) * columns * width, columns * width, width if bias else 0)
        return ShapeTensor((*size, width), self.costs)

    def apply_normalization(self, weights: int) -> ShapeTensor:
        """Apply a normalization with a given number of weights per channel."""
        self.costs.params += weights * self.shape[-1]
        return self

    def apply_pooling(self, stride: int) -> ShapeTensor:
        """Apply a padded pooling."""
        *size, channels = self.shape
        return ShapeTensor((*(-(-side // stride) for side in size), channels), self.costs)

    def apply_average(self, *, keep_axes: bool = False) -> ShapeTensor:
        """Apply an average over all positions."""
        *size, channels = self.shape
        return ShapeTensor((*(1 for _ in size if keep_axes), channels), self.costs)

    def flatten(self) -> ShapeTensor:
        """Flatten the tensor to a vector."""
        return ShapeTensor((math.prod(self.shape),), self.costs)

    def _add_costs(self, macs: int, weights: int, biases: int = 0) -> None:
        self.costs.macs += macs
        self.costs.params += weights + biases


def head(features: Any, task: Task) -> Any:
    """Return predictions (batch, outputs) from features (batch, size): the last layers of a model.

    They compute in float32 under every dtype policy, because softmax needs the range. The bias of a
    regression is initialized with the mean of the training labels.

    Args:
        features: A Keras tensor or a `ShapeTensor`.
        task: The task, which sets the number of outputs and their activation.
    """
    if isinstance(features, ShapeTensor):
        return features.apply_dense(task.outputs, bias=True)

    means = task.means if isinstance(task, Regression) else ()
    bias = keras.initializers.Constant(list(means)) if means else "zeros"
    dense = keras.layers.Dense(task.outputs, bias_initializer=bias, name="logits", dtype="float32")
    logits = dense(features)
    if task.activation == "linear":
        return logits
    if task.activation == "softmax":
        return keras.layers.Softmax(name="probabilities", dtype="float32")(logits)
    return keras.layers.Activation("sigmoid", name="probabilities", dtype="float32")(logits)


@dataclass(frozen=True)
class Choice:
    """A parameter of a space; see `declare_categorical`, `declare_int` and `declare_float`.

    Attributes:
        name: Name of the parameter, unique in its space.
        values: All values, in the order of the sampler's distribution.
        kind: "categorical", "int" (consecutive) or "float" (equally spaced).
        when: Name of an earlier choice and its values for which this one is active; None: always.
        least: The value with the fewest MACs, for any other choices.
        most: The value with the most MACs, for any other choices.
    """

    name: str
    values: tuple[Any, ...]
    kind: str
    when: tuple[str, tuple[Any, ...]] | None
    least: Any
    most: Any

    @property
    def is_ordered(self) -> bool:
        """Whether the values are numbers in ascending order."""
        numbers = [value for value in self.values if type(value) in (int, float)]
        return len(numbers) == len(self.values) and numbers == sorted(numbers)

    def is_active(self, chosen: Chosen) -> bool:
        """Return whether the condition holds, given the earlier choices."""
        return self.when is None or chosen.get(self.when[0]) in self.when[1]

    def to_distribution(self) -> BaseDistribution:
        """Return the distribution that a trial samples from."""
        from optuna.trial import FixedTrial

        trial = FixedTrial({self.name: self.values[0]})
        self.ask(trial)
        return trial.distributions[self.name]

    def ask(self, trial: BaseTrial) -> Any:
        """Sample a value from a trial."""
        low, high = self.values[0], self.values[-1]
        if self.kind == "int":
            return trial.suggest_int(self.name, low, high)
        if self.kind == "float":
            step = (high - low) / (len(self.values) - 1)
            return trial.suggest_float(self.name, low, high, step=step)
        return trial.suggest_categorical(self.name, self.values)


def declare_categorical(
    name: str,
    values: Sequence[Any],
    when: tuple[str, tuple[Any, ...]] | None = None,
    *,
    least: Any = None,
    most: Any = None,
) -> Choice:
    """Declare a categorical choice.

    Args:
        name: Name of the parameter.
        values: The values.
        when: See `Choice`.
        least: The value with the fewest MACs; default: the smallest value.
        most: The value with the most MACs; default: the largest value.
    """
    return Choice(
        name,
        tuple(values),
        "categorical",
        when,
        min(values) if least is None else least,
        max(values) if most is None else most,
    )


def declare_int(
    name: str, low: int, high: int, when: tuple[str, tuple[Any, ...]] | None = None
) -> Choice:
    """Declare an integer from `low` to `high`, both included; larger values have more MACs.

    Args:
        name: Name of the parameter.
        low: Lowest value.
        high: Highest value.
        when: See `Choice`.
    """
    return Choice(name, tuple(range(low, high + 1)), "int", when, low, high)


def declare_float(name: str, high: float, step: float) -> Choice:
    """Declare a number from 0 to `high` in steps, which does not affect MACs.

    Args:
        name: Name of the parameter.
        high: Highest value.
        step: Distance between values.
    """
    below = (index * step for index in range(round(high / step)))
    return Choice(name, (*below, high), "float", None, 0.0, 0.0)


def complete_choices(choices: Sequence[Choice], decide: Callable[[Choice], Any]) -> Chosen:
    """Return complete choices by deciding each active choice in order.

    Args:
        choices: All choices of a space.
        decide: Returns the value of a choice.
    """
    chosen: Chosen = {}
    for choice in choices:
        if choice.is_active(chosen):
            chosen[choice.name] = decide(choice)
    return chosen


def ask_choices(trial: BaseTrial, choices: Sequence[Choice]) -> Chosen:
    """Sample each active choice from a trial, in order.

    Args:
        trial: An Optuna trial.
        choices: All choices of a space.
    """
    return complete_choices(choices, lambda choice: choice.ask(trial))


def interpolate_choices(choices: Sequence[Choice], target: Chosen, share: float) -> Chosen:
    """Return complete choices between those with the fewest MACs and a target.

    Each number moves a share of the way through its values, from `least` to the target's value.
    Values that are not numbers (a kind of layer, an optional path) change only at the end, because
    they may cost more than all others together.

    Args:
        choices: All choices of a space.
        target: Complete choices; a missing choice stays at `least`.
        share: In [0, 1]. 0: the fewest MACs; 1: the target.
    """

    def select_value(choice: Choice) -> Any:
        low = choice.values.index(choice.least)
        high = choice.values.index(target.get(choice.name, choice.least))
        position = share if choice.is_ordered else math.floor(share)
        return choice.values[low + round(position * (high - low))]

    return complete_choices(choices, select_value)
