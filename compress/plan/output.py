"""Plan sections: formats of exported files, and latency measurement."""

from __future__ import annotations

from dataclasses import dataclass

from compress.core.quantities import MAX_THREADS, MAX_THREADS_REASON
from compress.plan.conversion import ConvertedField, NameList
from compress.plan.fields import Choices, option, require, validate_fields
from compress.plan.target import SizeTarget, TimeTarget
from compress.plugins import RUNTIMES

QAT, ONNX_QAT = "int8-qat", "onnx_int8-qat"
"""Formats of models after quantization-aware training."""
QAT_FORMATS = (QAT, ONNX_QAT)
MIXED, INT16, INT4 = "int8-mixed", "int16x8", "int4-weights"
LITERT_FORMATS = (
    "float32", "float16", "dynamic", "int8", QAT, MIXED, INT16, INT4, "sparse",
)  # fmt: skip
ONNX_FORMATS = ("onnx", "onnx_int8")
FORMATS = (*LITERT_FORMATS, *ONNX_FORMATS, ONNX_QAT)
LEVELS = ("int4", "dynamic4", "int8", "dynamic", "int16", "float16", "float32")
"""Precisions of a layer in a mixed-precision file, in ascending order."""


@dataclass(frozen=True)
class ExportOptions:
    """Formats of exported files, and limits of mixed precision."""

    formats: NameList = option(
        ("float32", "int8"),
        "--formats",
        "LiteRT: float32, float16, dynamic, int8, int8-qat, int16x8, int8-mixed, int4-weights, "
        "sparse; ONNX: onnx, onnx_int8, onnx_int8-qat (pip install 'paretune[mixed,onnx]')",
        choices=Choices("export format", FORMATS),
    )
    calibration: int = option(
        200, "--calibration", "training examples that calibrate int8", least=1, most=1_000_000,
        why="a few hundred tell the ranges",
    )  # fmt: skip
    opset: int | None = option(
        None, "--opset", "ONNX operator set; default: the converter's", least=1, most=1000,
        why="ONNX has far fewer",
    )  # fmt: skip
    mixed_levels: NameList = option(
        ("int8", "dynamic", "float16"),
        "--mixed-levels",
        "precisions among which int8-mixed chooses for each layer: int4 (weights; what passes in "
        "8 bits), int8, dynamic4 and dynamic (the same weights, what passes is rounded as it "
        "comes), int16 (what passes), float16 (weights, computed in floats), float32",
        choices=Choices("precision of a layer", LEVELS),
    )
    mixed_loss: float = option(
        0.25,
        "--mixed-loss",
        "share of what the outputs lose where all layers have the lowest of these precisions that "
        "int8-mixed may leave",
        unit="share",
    )
    mixed_size: ConvertedField[SizeTarget | None, SizeTarget | str | float | None] = option(
        None, "--mixed-size", "limit of int8-mixed: 0.3x (of the float32 file) or 200KB"
    )
    mixed_latency: ConvertedField[TimeTarget | None, TimeTarget | str | float | None] = option(
        None,
        "--mixed-latency",
        "limit of int8-mixed on LiteRT here: 0.5x (of the float32 file; also: 2x faster) or 3ms",
    )

    def __post_init__(self) -> None:
        validate_fields(self)
        require(bool(self.formats), "formats", "name at least one format", self.formats)
        require(bool(self.mixed_levels), "mixed_levels", "name one at least", self.mixed_levels)
        ordered = tuple(level for level in LEVELS if level in self.mixed_levels)
        object.__setattr__(self, "mixed_levels", ordered)
        require(0 <= self.mixed_loss < 1, "mixed_loss", "be in [0, 1)", self.mixed_loss)
        for name in ("mixed_size", "mixed_latency"):
            limit = getattr(self, name)
            ok = limit is None or (limit.amount > 0 and (limit.amount <= 1 or not limit.relative))
            require(ok, name, "be above 0; a share at most 1", limit)

    @property
    def candidate_formats(self) -> tuple[str, ...]:
        """Formats of candidates of a goal: all but int8-mixed, which takes minutes per model."""
        return tuple(kind for kind in self.formats if kind != MIXED)

    @property
    def qat_formats(self) -> tuple[str, ...]:
        """Formats that need quantization-aware training."""
        return tuple(kind for kind in self.formats if kind in QAT_FORMATS)


@dataclass(frozen=True)
class LatencyOptions:
    """Options of latency measurement (short blocks in random order)."""

    threads: int = option(
        1, "--latency-threads", "CPU threads of the timed runtime", least=1, most=MAX_THREADS,
        why=MAX_THREADS_REASON,
    )  # fmt: skip
    precision: float = option(
        0.02,
        "--latency-precision",
        "stop timing when each ratio's 95 % half-width is below this share",
        unit="share",
    )
    budget: ConvertedField[float, float | str] = option(
        60.0,
        "--latency-budget",
        "seconds (or 2m) after which timing stops in any case",
        unit="seconds",
    )

    runtimes: NameList = option(
        ("litert",),
        "--runtimes",
        "what times the files: litert; mnn (whose kernels skip zeros; float32 files; pip install "
        "'paretune[mnn]'); onnx and openvino (the ONNX files among --formats; pip install "
        "'paretune[onnx,openvino]')",
        choices=RUNTIMES,
    )

    def __post_init__(self) -> None:
        validate_fields(self)
        require(bool(self.runtimes), "runtimes", "name at least one runtime", self.runtimes)
        require(self.precision > 0, "latency_precision", "be above 0", self.precision)
        require(self.budget > 0, "latency_budget", "be above 0", self.budget)
