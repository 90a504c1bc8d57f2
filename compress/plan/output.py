"""Plan sections: which files are made, and how they are timed."""

from __future__ import annotations

from dataclasses import dataclass

from compress.core.counts import MORE_THREADS, MOST_THREADS
from compress.core.plugins import RUNTIMES
from compress.plan.fields import option, require, require_choice, settle
from compress.plan.forms import Given, Names

QAT, ONNX_QAT = "int8-qat", "onnx_int8-qat"
"""Of models that were trained as their file of whole numbers computes."""
TRAINED = (QAT, ONNX_QAT)
LITERT_FORMATS = ("float32", "float16", "dynamic", "int8", QAT, "sparse")
ONNX_FORMATS = ("onnx", "onnx_int8")
FORMATS = (*LITERT_FORMATS, *ONNX_FORMATS, ONNX_QAT)


@dataclass(frozen=True)
class ExportOptions:
    """Which files are made of a model."""

    formats: Names = option(
        ("float32", "int8"),
        "--formats",
        "LiteRT files: float32, float16, dynamic (int8 weights), int8, int8-qat (see "
        "--qat), sparse (float32 without zeros); ONNX files: onnx, onnx_int8 (pip install "
        "'paretune[onnx]')",
    )
    calibration: int = option(
        200, "--calibration", "training examples that calibrate int8", least=1, most=1_000_000,
        why="a few hundred tell the ranges",
    )  # fmt: skip
    opset: int | None = option(
        None, "--opset", "ONNX operator set; default: the converter's", least=1, most=1000,
        why="ONNX has far fewer",
    )  # fmt: skip

    def __post_init__(self) -> None:
        settle(self)
        require(bool(self.formats), "formats", "name at least one format", self.formats)
        for name in self.formats:
            require_choice("export format", name, FORMATS)

    @property
    def trained(self) -> tuple[str, ...]:
        """Those among the formats that a model is trained for."""
        return tuple(kind for kind in self.formats if kind in TRAINED)


@dataclass(frozen=True)
class LatencyOptions:
    """The block protocol of latency measurement."""

    threads: int = option(
        1, "--latency-threads", "CPU threads of the timed runtime", least=1, most=MOST_THREADS,
        why=MORE_THREADS,
    )  # fmt: skip
    precision: float = option(
        0.02,
        "--latency-precision",
        "stop timing when each ratio's 95 % half-width is below this share",
    )
    budget: Given[float, float | str] = option(
        60.0,
        "--latency-budget",
        "seconds (or 2m) after which timing stops in any case",
        unit="seconds",
    )

    runtimes: Names = option(
        ("litert",),
        "--runtimes",
        "what times the files: litert; mnn (whose kernels skip zeros; float32 files; pip install "
        "'paretune[mnn]'); onnx and openvino (the ONNX files among --formats; pip install "
        "'paretune[onnx,openvino]')",
    )

    def __post_init__(self) -> None:
        settle(self)
        for name in self.runtimes:
            RUNTIMES.require(name)
        require(bool(self.runtimes), "runtimes", "name at least one runtime", self.runtimes)
        require(self.precision > 0, "latency_precision", "be above 0", self.precision)
        require(self.budget > 0, "latency_budget", "be above 0", self.budget)
