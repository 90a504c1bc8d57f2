"""What a search space is: choices asked of a trial, and the model that they make or sketch."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from compress.data import Dataset
from compress.data.tasks import Regression, Task
from search.spaces._choices import Choice, Chosen, between, choose, extreme

if TYPE_CHECKING:
    import keras
    from optuna.trial import BaseTrial


class Space(Protocol):
    """A search space.

    Attributes:
        name: As users type it.
        trained: Whether models come with trained weights: training goes on from there.
    """

    @property
    def name(self) -> str:
        """As users type it."""
        ...

    @property
    def trained(self) -> bool:
        """Whether models come with trained weights: training goes on from there."""
        ...

    def facts(self) -> dict[str, str]:
        """Returns, by name, what the space follows from beside its name; {}: nothing.

        A run goes on only where it is the same. Called behind `check`.
        """
        ...

    def whole(self) -> tuple[Path, keras.Model] | None:
        """Returns the trained model, and its file, that the space's models are parts of, or None.

        Raises:
            InputError: It cannot be read.
        """
        ...

    def check(self, data: Dataset) -> None:
        """Raises InputError where the space cannot serve this data."""
        ...

    def baseline(self, data: Dataset) -> dict[str, Any]:
        """Returns sensible choices, tried first: what a search has to beat; {}: unknown."""
        ...

    def smallest(self, data: Dataset) -> dict[str, Any] | None:
        """Returns the complete choices of fewest MACs, or None where they are not known."""
        ...

    def largest(self, data: Dataset) -> dict[str, Any] | None:
        """Returns the complete choices of most MACs, or None where they are not known."""
        ...

    def ladder(self, data: Dataset, steps: int) -> list[dict[str, Any]]:
        """Returns complete choices from the smallest model's on towards the baseline.

        Args:
            data: What the models are for.
            steps: How many at most, at least 0.

        Returns:
            Choices of rising costs, without the baseline, each once; [] where the smallest
            are not known.
        """
        ...

    def build(self, trial: BaseTrial, data: Dataset) -> keras.Model:
        """Asks `trial` for all choices and builds the model, untrained unless `trained`.

        The model takes `data.input_shape` and ends in `head`.
        """
        ...

    def count(self, chosen: dict[str, Any], data: Dataset) -> tuple[int, int] | None:
        """Returns MACs and parameters of complete choices without building them; None: unknown."""
        ...

    def prepare(
        self, model: keras.Model, chosen: dict[str, Any], data: Dataset, *, quickly: bool = False
    ) -> None:
        """Readies a model of `build` for its training, in place.

        For what takes time and changes no cost: it is not called for a model that is rejected.

        Args:
            model: As it was built.
            chosen: Its choices; others, as the optimizer's, may be among them.
            data: What it will be trained on.
            quickly: It is one of hundreds, to be told from the others in seconds.
        """
        ...


class DeclaredSpace(ABC):
    """A space whose choices are data, so that they are counted and bounded without Keras.

    The choices of fewest and of most MACs are also those of fewest and of most parameters
    (some parameters, as of normalization, may be the same elsewhere): subclasses keep to it.
    """

    name: str
    trained = False

    def facts(self) -> dict[str, str]:
        """See `Space.facts`."""
        return {}

    def whole(self) -> tuple[Path, keras.Model] | None:
        """See `Space.whole`."""
        return None

    @abstractmethod
    def check(self, data: Dataset) -> None:
        """See `Space.check`."""

    @abstractmethod
    def baseline(self, data: Dataset) -> dict[str, Any]:
        """See `Space.baseline`."""

    @abstractmethod
    def choices(self, data: Dataset) -> tuple[Choice, ...]:
        """Returns what is asked, in order; a condition names an earlier choice."""

    @abstractmethod
    def assemble(self, chosen: Chosen, data: Dataset) -> keras.Model:
        """Builds the model of complete choices, untrained unless `trained`."""

    def smallest(self, data: Dataset) -> dict[str, Any]:
        """Returns the complete choices of fewest MACs and parameters."""
        return extreme(self.choices(data), most=False)

    def largest(self, data: Dataset) -> dict[str, Any]:
        """Returns the complete choices of most MACs and parameters."""
        return extreme(self.choices(data), most=True)

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

    def count(self, chosen: Chosen, data: Dataset) -> tuple[int, int] | None:
        """See `Space.count`; unknown unless a subclass says it."""
        return None

    def prepare(  # noqa: B027
        self, model: keras.Model, chosen: dict[str, Any], data: Dataset, *, quickly: bool = False
    ) -> None:
        """See `Space.prepare`; nothing is left to do unless a subclass says so."""


class DrawnSpace(DeclaredSpace):
    """A space whose networks are drawn by functions that Keras's tensors and sketches take."""

    input_name = "image"
    """Of the model's input."""

    @abstractmethod
    def net(self, x: Any, chosen: Chosen, data: Dataset) -> Any:
        """Returns the outputs of complete choices for inputs.

        Args:
            x: A tensor of Keras, or a `Sketch`.
            chosen: Complete choices.
            data: What the network is for.
        """

    def assemble(self, chosen: Chosen, data: Dataset) -> keras.Model:
        """See `DeclaredSpace.assemble`."""
        import keras

        inputs = keras.Input(data.input_shape, name=self.input_name)
        return keras.Model(inputs, self.net(inputs, chosen, data), name=self.name)

    def count(self, chosen: Chosen, data: Dataset) -> tuple[int, int]:
        """See `Space.count`."""
        tally = self.net(Sketch(tuple(data.input_shape)), chosen, data).tally
        return tally.macs, tally.params


@dataclass
class Tally:
    """What has been drawn so far.

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
        """Draws a convolution with padding, (height, width, channels)."""
        *size, channels = self.shape
        made = [-(-side // stride) for side in size]
        weights = kernel**2 * channels * width
        self._count(math.prod(made) * weights, weights, width if bias else 0)
        return Sketch((*made, width), self.tally)

    def depthwise(self, kernel: int, stride: int) -> Sketch:
        """Draws a depthwise convolution with padding and without a bias."""
        *size, channels = self.shape
        made = [-(-side // stride) for side in size]
        self._count(math.prod(made) * kernel**2 * channels, kernel**2 * channels)
        return Sketch((*made, channels), self.tally)

    def dense(self, width: int, bias: bool) -> Sketch:
        """Draws a matrix."""
        *size, columns = self.shape
        self._count(math.prod(size) * columns * width, columns * width, width if bias else 0)
        return Sketch((*size, width), self.tally)

    def normalize(self, weights: int) -> Sketch:
        """Draws a normalization: so many numbers a channel."""
        self.tally.params += weights * self.shape[-1]
        return self

    def pool(self, stride: int) -> Sketch:
        """Draws a pooling with padding."""
        *size, channels = self.shape
        return Sketch((*(-(-side // stride) for side in size), channels), self.tally)

    def mean(self, *, keep: bool = False) -> Sketch:
        """Draws an average over all positions."""
        *size, channels = self.shape
        return Sketch((*(1 for _ in size if keep), channels), self.tally)

    def flat(self) -> Sketch:
        """Draws the numbers of an example in a row."""
        return Sketch((math.prod(self.shape),), self.tally)

    def _count(self, macs: int, weights: int, biases: int = 0) -> None:
        self.tally.macs += macs
        self.tally.params += weights + biases


def head(features: Any, task: Task) -> Any:
    """Returns predictions (batch, outputs) from features (batch, size): the end of a model.

    It computes in float32 under every policy: softmax needs the range. The head of a
    regression begins at the mean of the training labels, however far from 0 they are.
    """
    if isinstance(features, Sketch):
        return features.dense(task.outputs, bias=True)
    import keras

    means = task.means if isinstance(task, Regression) else ()
    bias = keras.initializers.Constant(list(means)) if means else "zeros"
    dense = keras.layers.Dense(task.outputs, bias_initializer=bias, name="logits", dtype="float32")
    logits = dense(features)
    if task.activation == "linear":
        return logits
    if task.activation == "softmax":
        return keras.layers.Softmax(name="probabilities", dtype="float32")(logits)
    return keras.layers.Activation("sigmoid", name="probabilities", dtype="float32")(logits)
