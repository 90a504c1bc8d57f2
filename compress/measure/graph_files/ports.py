"""What a graph takes and gives."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Port:
    """An input or output.

    Attributes:
        name: As whoever feeds the file calls it.
        shape: The batch axis included; None where a size is open; None: any rank.
        dtype: NumPy's name of the type, or "string".
        scale, zero_point: Of quantized numbers: real = scale * (integer - zero_point); 0: it
            is none.
    """

    name: str
    shape: tuple[int | None, ...] | None
    dtype: str
    scale: float = 0.0
    zero_point: int = 0

    @property
    def sizes(self) -> tuple[int | None, ...]:
        """The shape of one example, without the batch axis."""
        return () if self.shape is None else self.shape[1:]


def shape_text(port: Port) -> str:
    """Returns "1 x ? x 3", or "any" where the rank is open."""
    if port.shape is None:
        return "any"
    return " x ".join("?" if size is None else str(size) for size in port.shape) or "a scalar"


def type_text(port: Port) -> str:
    """Returns "float32", or "int8 (scale 0.0039, zero point -128)"."""
    if not port.scale:
        return port.dtype
    return f"{port.dtype} (scale {port.scale:.6g}, zero point {port.zero_point})"
