"""Values of a fake-quantized model, and the state that its calls share."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from compress.model.ports import make_unique
from compress.quantization.kernels import Affine
from compress.quantization.ranges import FakeQuant, QuantizationState

Function = Callable[..., Any]
_NOT_IN_SCOPES = re.compile(r"[^A-Za-z0-9_.-]")


@dataclass(eq=False)
class Value:
    """Tensor of the fake-quantized model.

    Attributes:
        name: Name of the call that computed it.
        tensor: Symbolic tensor; None for an unfinished sum.
        range: Range layer that rounded it; None: it is a float, not real-valued, or an unfinished
            sum.
        sum: Integer result that has not been rounded to a grid yet.
        plain: The tensor before a prescribed range was applied; None: no prescribed range.
        loose: Whether it is a float after a product of activations, which stays float unless a
            kernel reads it.
        is_integer: Whether it holds integers or booleans, such as indices, which are not quantized.
        real_value: The quantized version of integers that some call reads as real values.
        users: Number of calls that read it, each model output counted as one. A value with a single
            reader can be fused with it. The intermediate values of a call have one reader.
    """

    name: str
    tensor: Any = None
    range: FakeQuant | None = None
    sum: Sum | None = None
    plain: Any = None
    loose: bool = False
    is_integer: bool = False
    real_value: Value | None = None
    users: int = 1

    @property
    def grid(self) -> FakeQuant:
        """The range of a value on a grid."""
        assert self.range is not None
        return self.range


@dataclass(frozen=True, eq=False)
class Sum:
    """Result of integer arithmetic that is not rounded yet, so that operations can be fused.

    Attributes:
        build: Function that returns the symbolic tensor; it is called once.
        fuses: Whether a following ReLU can be fused.
        fold_affine: Function that folds a per-channel scale and offset into the kernel and returns
            the new sum; None: there is no kernel.
        fixed: Range that the runtime prescribes.
        cap: Upper limit of the range.
    """

    build: Callable[[], Any]
    fuses: bool = True
    fold_affine: Callable[[Affine], Sum] | None = None
    fixed: tuple[float, float] | None = None
    cap: float | None = None


@dataclass(eq=False)
class TwinBuilder:
    """State that all calls of a model share.

    Attributes:
        state: State of the model's layers.
        reduced_range: Whether weights have 7 bits; see `QuantizedKernel`.
        placed: Records of the computation of all calls, in order.
        ranges: All range layers, in order of creation.
    """

    state: QuantizationState
    reduced_range: bool = False
    placed: list[Placement] = field(default_factory=list)
    ranges: list[FakeQuant] = field(default_factory=list)
    _names: set[str] = field(default_factory=set)

    def reserve_name(self, base_name: str) -> str:
        """Return a unique layer name that is a valid TensorFlow scope.

        Names of custom layers and functions may be invalid: "<lambda>" or "größe".

        Args:
            base_name: Preferred name.
        """
        base_name = _NOT_IN_SCOPES.sub("_", base_name).lstrip("_-") or "call"
        unique_name = make_unique(base_name, self._names)
        self._names.add(unique_name)
        return unique_name

    def add_range(
        self, name: str, fixed: tuple[float, float] | None = None, **settings: Any
    ) -> FakeQuant:
        """Create a range layer; see `FakeQuant` for the settings."""
        fake_quant = FakeQuant(
            self.state,
            fixed=fixed,
            name=self.reserve_name(f"{name}_range"),
            **settings,
        )
        self.ranges.append(fake_quant)
        return fake_quant

    def record_call(self, layer: str, operation: Any, reason: str = "") -> None:
        """Record the computation of a call.

        Args:
            layer: Name of the layer, after the names of enclosing models.
            operation: The layer or operation.
            reason: Reason for float; "" if it is computed in integers.
        """
        self.placed.append(Placement(layer, type(operation).__name__, reason))


@dataclass(frozen=True)
class Placement:
    """Computation of one call: in integers, or in float with a reason.

    Attributes:
        layer: Name of the layer, after the names of enclosing models.
        kind: Class of the layer or operation.
        reason: Reason for float; "" if it is computed in integers.
    """

    layer: str
    kind: str
    reason: str = ""


def bring_to_grid(builder: TwinBuilder, value: Value) -> Value:
    """Round a value to its own grid, unless it is on one or holds integers.

    Args:
        builder: State of the model.
        value: A value on a grid, a sum, a float or integers; it is changed in place.

    Returns:
        The same value.
    """
    if value.range is not None or value.is_integer:
        return value
    fixed, cap = (None, None) if value.sum is None else (value.sum.fixed, value.sum.cap)
    tensor = value.tensor if value.sum is None else value.sum.build()
    value.range = builder.add_range(value.name, fixed, cap=cap)
    value.tensor, value.sum = value.range(tensor), None
    value.plain = tensor if fixed is not None else None
    return value
