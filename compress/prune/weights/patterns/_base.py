"""What a pattern says: which weights of a kernel are kept or pruned together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from compress.prune.weights.targets import Target


class Pattern(ABC):
    """One pattern. All tensors are TensorFlow's; every method but `check` is graph code."""

    decides: ClassVar[bool] = False
    """The pattern itself says how many units stay, by `kept`; else a sparsity does."""

    @property
    @abstractmethod
    def name(self) -> str:
        """As in a plan: "unstructured", "2:4", "1x4"."""

    @abstractmethod
    def check(self, target: Target) -> str:
        """Returns why a weight cannot have this pattern; empty where it can.

        Raises:
            InputError: The pattern is too large for the weight.
        """

    @abstractmethod
    def magnitudes(self, weight: Any, target: Target) -> Any:
        """Returns one magnitude for each unit (weight, block or position), any shape."""

    @abstractmethod
    def spread(self, kept: Any, target: Target) -> Any:
        """Turns kept units, booleans shaped as `magnitudes`, into a mask of the weight's shape."""

    def kept(self, magnitudes: Any) -> Any:
        """Returns which units stay, booleans of the magnitudes' shape; where it `decides`."""
        raise NotImplementedError
