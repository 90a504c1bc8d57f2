"""Plan sections: formats of exported files, and latency measurement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from compress.core.quantities import MAX_THREADS, MAX_THREADS_REASON
from compress.plan.conversion import ConvertedField, NameList
from compress.plan.fields import Choices, RemovedOption, option, require, validate_fields
from compress.plugins import RUNTIMES

QAT, ONNX_QAT = "int8-qat", "onnx_int8-qat"
"""Formats of models after quantization-aware training."""
QAT_FORMATS = (QAT, ONNX_QAT)
MIXED, INT16, INT4 = "int8-mixed", "int16x8", "int4-weights"
LITERT_FORMATS = (
    "float32",
    "float16",
    "dynamic",
    "int8",
    QAT,
    MIXED,
    INT16,
    INT4,
    "sparse",
)
ONNX_FORMATS = ("onnx", "onnx_int8")
FORMATS = (*LITERT_FORMATS, *ONNX_FORMATS, ONNX_QAT)


@dataclass(frozen=True)
class ExportOptions:
    """Formats of exported files, and their calibration."""

    REMOVED: ClassVar[dict[str, RemovedOption]] = {
        "mixed_levels": RemovedOption(
            "--mixed-levels",
            "int8-mixed chooses among int8, dynamic and float16 for each layer. Leave it out; for "
            "weights of four bits name the format int4-weights.",
            unused_values=(["int8", "dynamic", "float16"],),
        ),
        "mixed_size": RemovedOption(
            "--mixed-size",
            "Only a goal limits the size of an int8-mixed file. Use paretune shrink with size "
            "(--size).",
            unused_values=(None,),
        ),
        "mixed_latency": RemovedOption(
            "--mixed-latency",
            "Only a goal limits the latency of an int8-mixed file. Use paretune shrink with "
            "latency (--latency).",
            unused_values=(None,),
        ),
        "mixed_loss": RemovedOption(
            "--mixed-loss",
            "An int8-mixed file keeps at most a quarter of the output error of int8. Leave it out; "
            "for less error name the format int16x8 or float16, for a smaller or faster file use "
            "paretune shrink with size or latency.",
            unused_values=(0.25,),
        ),
    }

    formats: NameList = option(
        ("float32", "int8"),
        "file formats, with commas",
        choices=Choices("export format", FORMATS),
    )
    calibration: int = option(
        200,
        "training examples that calibrate integer formats",
        least=1,
        most=1_000_000,
        why="a few hundred tell the ranges",
    )
    opset: int | None = option(
        None,
        "ONNX operator set that tf2onnx can write, like 15; default: the converter's",
        least=1,
        most=1000,
        why="ONNX has far fewer",
    )

    def __post_init__(self) -> None:
        validate_fields(self)
        require(bool(self.formats), "formats", "name at least one format", self.formats)

    @property
    def candidate_formats(self) -> tuple[str, ...]:
        """Formats of candidates of a goal: all but int8-mixed and QAT, made at its end."""
        return tuple(kind for kind in self.formats if kind not in (MIXED, *QAT_FORMATS))

    @property
    def qat_formats(self) -> tuple[str, ...]:
        """Formats that need quantization-aware training."""
        return tuple(kind for kind in self.formats if kind in QAT_FORMATS)


@dataclass(frozen=True)
class LatencyOptions:
    """Options of latency measurement (short blocks in random order)."""

    REMOVED: ClassVar[dict[str, RemovedOption]] = {
        "precision": RemovedOption(
            "--latency-precision",
            "Timing stops when each ratio's 95 % half-width is below 2 %. To stop earlier, give "
            "fewer seconds as budget (--latency-budget); paretune bench takes a --precision.",
            unused_values=(0.02,),
        ),
    }

    threads: int = option(
        1,
        "CPU threads of latency measurements",
        flat_name="latency_threads",
        least=1,
        most=MAX_THREADS,
        why=MAX_THREADS_REASON,
    )
    budget: ConvertedField[float, float | str] = option(
        60.0,
        "time limit of one latency measurement, in seconds (or 2m), above 0",
        flat_name="latency_budget",
        unit="seconds",
    )

    runtimes: NameList = option(
        ("litert",),
        "runtimes that time the files, with commas; mnn, onnx, openvino: extras; tensorflow: "
        "paretune bench alone",
        choices=RUNTIMES,
    )

    def __post_init__(self) -> None:
        validate_fields(self)
        require(bool(self.runtimes), "runtimes", "name at least one runtime", self.runtimes)
        require(self.budget > 0, "latency_budget", "be above 0", self.budget)
