"""The interface of search spaces: choices asked of a trial, and the model or sketch of them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.core.lazy_modules import keras
from compress.data import Dataset
from compress.data.tasks import Regression, Task

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import BaseTrial
Chosen = dict[str, Any]
"""Complete choices: name -> value, without those whose condition does not hold."""


class Space(ABC):
    """A search space.

    Inherit it for a space of one's own: `check`, `baseline` and `build` are all that it must have.

    Attributes:
        name: As users type it.
        trained: Whether models come with trained weights: training goes on from there.
    """

    name: str
    trained = False

    def facts(self) -> dict[str, str]:
        """Return, by name, what a space depends on beside its name, as a file's hash; {}: nothing.

        A run goes on only where it is the same. Called behind `check`.
        """
        return {}

    def whole(self) -> tuple[Path, keras.Model] | None:
        """Return the trained model, and its file, that the space's models are parts of, or None.

        Raises:
            InputError: It cannot be read.
        """
        return None

    @abstractmethod
    def check(self, data: Dataset) -> None:
        """Raise InputError where the space cannot serve this data."""

    @abstractmethod
    def baseline(self, data: Dataset) -> dict[str, Any]:
        """Return sensible choices, tried first, which a search has to beat; {}: unknown."""

    def smallest(self, data: Dataset) -> dict[str, Any] | None:
        """Return the complete choices of fewest MACs, or None where they are not known."""
        return None

    def largest(self, data: Dataset) -> dict[str, Any] | None:
        """Return the complete choices of most MACs, or None where they are not known."""
        return None

    def ladder(self, data: Dataset, steps: int) -> list[dict[str, Any]]:
        """Return complete choices from the smallest model's on towards the baseline.

        Args:
            data: What the models are for.
            steps: How many at most, at least 0.

        Returns:
            Choices of rising costs, without the baseline, each once; [] where the smallest
            are not known.
        """
        return []

    @abstractmethod
    def build(self, trial: BaseTrial, data: Dataset) -> keras.Model:
        """Ask `trial` for all choices and build the model, untrained unless `trained`.

        The model takes `data.input_shape` and ends in `head`.
        """

    def count(self, chosen: dict[str, Any], data: Dataset) -> tuple[int, int] | None:
        """Return MACs and parameters of complete choices without building them; None: unknown."""
        return None

    def prepare(  # noqa: B027
        self, model: keras.Model, chosen: dict[str, Any], data: Dataset, *, quickly: bool = False
    ) -> None:
        """Ready a model of `build` for its training, in place.

        For what takes time and changes no cost: it is not called for a model that is rejected.

        Args:
            model: As it was built.
            chosen: Its choices; others, as the optimizer's, may be among them.
            data: What it will be trained on.
            quickly: It is one of hundreds, to be told from the others in seconds.
        """


class DeclaredSpace(Space):
    """A space whose choices are data, so that they are counted and bounded without Keras.

    The choices of fewest and of most MACs are also those of fewest and of most parameters
    (some parameters, as of normalization, may be the same elsewhere): subclasses keep to it.
    """

    @abstractmethod
    def choices(self, data: Dataset) -> tuple[Choice, ...]:
        """Return the choices in the order of asking; a condition names an earlier choice."""

    @abstractmethod
    def assemble(self, chosen: Chosen, data: Dataset) -> keras.Model:
        """Build the model of complete choices, untrained unless `trained`."""

    def smallest(self, data: Dataset) -> dict[str, Any]:
        """Return the complete choices of fewest MACs and parameters."""
        return complete(self.choices(data), lambda choice: choice.least)

    def largest(self, data: Dataset) -> dict[str, Any]:
        """Return the complete choices of most MACs and parameters."""
        return complete(self.choices(data), lambda choice: choice.most)

    def ladder(self, data: Dataset, steps: int) -> list[dict[str, Any]]:
        """See `Space.ladder`; each choice goes through its values in equal parts."""
        choices, top = self.choices(data), self.baseline(data)
        made: list[Chosen] = []
        for step in range(steps):
            chosen = between(choices, top, step / steps)
            if chosen != top and chosen not in made:
                made.append(chosen)
        return made

    def build(self, trial: BaseTrial, data: Dataset) -> keras.Model:
        """See `Space.build`."""
        return self.assemble(choose(trial, self.choices(data)), data)


class DrawnSpace(DeclaredSpace):
    """A space whose networks are drawn by functions that Keras's tensors and sketches take."""

    input_name = "image"
    """Of the model's input."""

    @abstractmethod
    def net(self, x: Any, chosen: Chosen, data: Dataset) -> Any:
        """Return the outputs of complete choices for inputs.

        Args:
            x: A tensor of Keras, or a `Sketch`.
            chosen: Complete choices.
            data: What the network is for.
        """

    def assemble(self, chosen: Chosen, data: Dataset) -> keras.Model:
        """See `DeclaredSpace.assemble`."""
        inputs = keras.Input(data.input_shape, name=self.input_name)
        return keras.Model(inputs, self.net(inputs, chosen, data), name=self.name)

    def count(self, chosen: Chosen, data: Dataset) -> tuple[int, int]:
        """See `Space.count`."""
        tally = self.net(Sketch(tuple(data.input_shape)), chosen, data).tally
        return tally.macs, tally.params


@dataclass
class Tally:
    """The costs of what has been drawn so far.

    Attributes:
        macs, params: As `compress.measure.count_macs` counts them.
    """

    macs: int = 0
    params: int = 0


@dataclass(frozen=True)
class Sketch:
    """A tensor that is only a shape.

    Attributes:
        shape: Of one example, channels last.
        tally: Of the whole network.
    """

    shape: tuple[int, ...]
    tally: Tally = field(default_factory=Tally)

    def conv(self, width: int, kernel: int, stride: int, bias: bool) -> Sketch:
        """Draw a convolution with padding, (height, width, channels)."""
        *size, channels = self.shape
        made = [-(-side // stride) for side in size]
        weights = kernel**2 * channels * width
        self._count(math.prod(made) * weights, weights, width if bias else 0)
        return Sketch((*made, width), self.tally)

    def depthwise(self, kernel: int, stride: int) -> Sketch:
        """Draw a depthwise convolution with padding and without a bias."""
        *size, channels = self.shape
        made = [-(-side // stride) for side in size]
        self._count(math.prod(made) * kernel**2 * channels, kernel**2 * channels)
        return Sketch((*made, channels), self.tally)

    def dense(self, width: int, bias: bool) -> Sketch:
        """Draw a matrix."""
        *size, columns = self.shape
        self._count(math.prod(size) * columns * width, columns * width, width if bias else 0)
        return Sketch((*size, width), self.tally)

    def normalize(self, weights: int) -> Sketch:
        """Draw a normalization: so many numbers a channel."""
        self.tally.params += weights * self.shape[-1]
        return self

    def pool(self, stride: int) -> Sketch:
        """Draw a pooling with padding."""
        *size, channels = self.shape
        return Sketch((*(-(-side // stride) for side in size), channels), self.tally)

    def mean(self, *, keep: bool = False) -> Sketch:
        """Draw an average over all positions."""
        *size, channels = self.shape
        return Sketch((*(1 for _ in size if keep), channels), self.tally)

    def flat(self) -> Sketch:
        """Draw the numbers of an example in a row."""
        return Sketch((math.prod(self.shape),), self.tally)

    def _count(self, macs: int, weights: int, biases: int = 0) -> None:
        self.tally.macs += macs
        self.tally.params += weights + biases


def head(features: Any, task: Task) -> Any:
    """Return predictions (batch, outputs) from features (batch, size): the end of a model.

    It computes in float32 under every policy: softmax needs the range. The head of a
    regression begins at the mean of the training labels, however far from 0 they are.
    """
    if isinstance(features, Sketch):
        return features.dense(task.outputs, bias=True)

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
    """One question to a trial; see `pick`, `whole` and `steps`.

    Attributes:
        name: Of the parameter, unique in its space.
        values: All there are, in the order in which the sampler knows them.
        kind: "categorical", "int" (consecutive) or "float" (equally spaced).
        when: Name of an earlier choice and its values at which this one is asked; None: always.
        least: The value of fewest MACs, whatever else is chosen.
        most: The value of most MACs.
    """

    name: str
    values: tuple[Any, ...]
    kind: str
    when: tuple[str, tuple[Any, ...]] | None
    least: Any
    most: Any

    @property
    def counts(self) -> bool:
        """Whether the values are numbers in rising order."""
        numbers = [value for value in self.values if type(value) in (int, float)]
        return len(numbers) == len(self.values) and numbers == sorted(numbers)

    def asked(self, chosen: Chosen) -> bool:
        """Tell whether the condition holds, given the earlier choices."""
        return self.when is None or chosen.get(self.when[0]) in self.when[1]

    def distribution(self) -> BaseDistribution:
        """Return the distribution that a trial samples from."""
        from optuna import distributions

        low, high = self.values[0], self.values[-1]
        if self.kind == "int":
            return distributions.IntDistribution(low, high)
        if self.kind == "float":
            step = (high - low) / (len(self.values) - 1)
            return distributions.FloatDistribution(low, high, step=step)
        return distributions.CategoricalDistribution(self.values)

    def ask(self, trial: BaseTrial) -> Any:
        """Ask the trial."""
        low, high = self.values[0], self.values[-1]
        if self.kind == "int":
            return trial.suggest_int(self.name, low, high)
        if self.kind == "float":
            step = (high - low) / (len(self.values) - 1)
            return trial.suggest_float(self.name, low, high, step=step)
        return trial.suggest_categorical(self.name, self.values)


def pick(
    name: str,
    values: Sequence[Any],
    when: tuple[str, tuple[Any, ...]] | None = None,
    *,
    least: Any = None,
    most: Any = None,
) -> Choice:
    """Declare a choice among `values`; the smallest has fewest MACs unless told otherwise."""
    return Choice(
        name,
        tuple(values),
        "categorical",
        when,
        min(values) if least is None else least,
        max(values) if most is None else most,
    )


def whole(
    name: str, low: int, high: int, when: tuple[str, tuple[Any, ...]] | None = None
) -> Choice:
    """Declare a whole number from `low` to `high`, both included; more means more MACs."""
    return Choice(name, tuple(range(low, high + 1)), "int", when, low, high)


def steps(name: str, high: float, step: float) -> Choice:
    """Declare a number from 0 to `high` in steps; it costs no MACs, and 0 stands for it."""
    below = (index * step for index in range(round(high / step)))
    return Choice(name, (*below, high), "float", None, 0.0, 0.0)


def complete(choices: Sequence[Choice], decide: Callable[[Choice], Any]) -> Chosen:
    """Decide every choice whose condition holds, in order."""
    chosen: Chosen = {}
    for choice in choices:
        if choice.asked(chosen):
            chosen[choice.name] = decide(choice)
    return chosen


def choose(trial: BaseTrial, choices: Sequence[Choice]) -> Chosen:
    """Ask a trial for every choice whose condition holds, in order."""
    return complete(choices, lambda choice: choice.ask(trial))


def between(choices: Sequence[Choice], other: Chosen, share: float) -> Chosen:
    """Return complete choices that lie between those of fewest MACs and others.

    Each number goes a share of the way through its values, from `least` to the other's;
    what is no number (a kind of layer, a path that is there or not) changes at the end of the
    way, as it may well cost more than all the rest.

    Args:
        choices: All of a space.
        other: Complete choices; what they do not have stays at `least`.
        share: In [0, 1]. 0: the fewest MACs; 1: the others.
    """

    def decide(choice: Choice) -> Any:
        low = choice.values.index(choice.least)
        high = choice.values.index(other.get(choice.name, choice.least))
        way = share if choice.counts else math.floor(share)
        return choice.values[low + round(way * (high - low))]

    return complete(choices, decide)


def count(choices: Sequence[Choice]) -> int:
    """Return the exact number of complete choices.

    Each choice has one condition at most, so the conditions form a forest: a choice offers
    the sum over its values of the product over the choices asked at that value.
    """
    followers: dict[str, list[tuple[Choice, tuple[Any, ...]]]] = {}
    for choice in choices:
        if choice.when is not None:
            followers.setdefault(choice.when[0], []).append((choice, choice.when[1]))

    def ways(choice: Choice) -> int:
        return sum(
            math.prod(ways(after) for after, at in followers.get(choice.name, ()) if value in at)
            for value in choice.values
        )

    return math.prod(ways(choice) for choice in choices if choice.when is None)
