"""Plan section of `shrink`: what the smaller model must come to."""

from __future__ import annotations

from dataclasses import dataclass

from compress.core.quantities import number_text
from compress.plan.fields import option, require, settle
from compress.plan.forms import Given, Place
from compress.plan.output import ONNX_FORMATS
from compress.plan.target import SizeTarget, Target, TimeTarget

TIMED = ("float32", "float16", "dynamic", "int8")
"""LiteRT's formats of files that are made and timed on the way to a goal."""
GOAL_RUNTIMES: dict[str, tuple[str, ...]] = {
    "litert": TIMED,
    "onnx": ONNX_FORMATS,
    "openvino": ONNX_FORMATS,
}
"""Runtimes whose time may be a goal, with the formats of their files; the first one of a goal
without rounding, of which shares are."""
COSTS = ("latency", "size", "peak_memory", "macs", "params")
"""Goals of cost, as fields of `GoalOptions`."""


@dataclass(frozen=True)
class GoalOptions:
    """What to come to: costs, quality, both, or neither (a front from 1x to 0.1x)."""

    latency: Given[TimeTarget | None, TimeTarget | str | float | None] = option(
        None,
        "--latency",
        "time of one inference: 0.5x (of the model's float32 file; also: 2x faster) or 3ms; "
        "measured with the first of --runtimes (litert, onnx or openvino) and --latency-threads",
    )
    latency_table: Place = option(
        None,
        "--latency-table",
        "times of another device, which the latency is of: a file of paretune latency-table import",
    )
    size: Given[SizeTarget | None, SizeTarget | str | float | None] = option(
        None, "--size", "size of the file: 0.25x (of the model's float32 file) or 200KB"
    )
    peak_memory: Given[SizeTarget | None, SizeTarget | str | float | None] = option(
        None,
        "--peak-memory",
        "memory for what flows through one inference, LiteRT's arena: 0.5x (of the model's float32 "
        "file) or 64KB",
    )
    macs: Given[Target | None, Target | str | float | None] = option(
        None, "--macs", "multiply-accumulates of one inference: 0.5x or 12M"
    )
    params: Given[Target | None, Target | str | float | None] = option(
        None, "--params", "parameters: 0.5x or 200k"
    )
    max_drop: float | None = option(
        None,
        "--max-drop",
        "maximum drop of the metric, in percentage points, at least 0: 1 is from 93 % to 92 %",
    )
    min_quality: float | None = option(
        None,
        "--min-quality",
        "least value of the metric, as the metric counts: 0.92",
    )
    budget: Given[float | None, float | str | None] = option(
        None,
        "--budget",
        "seconds (or 30m) within which all is to be done; default: as long as it takes",
        unit="seconds",
    )
    no_train: bool = option(
        False, "--no-train", "repair alone, no fine-tuning: minutes, and no labels are needed"
    )

    def __post_init__(self) -> None:
        settle(self)
        for name in COSTS:
            target = getattr(self, name)
            if target is None:
                continue
            rule = "be above 0; a share at most 1"
            ok = target.amount > 0 and (target.amount <= 1 or not target.relative)
            require(ok, name, rule, target)
        require(
            self.latency_table is None or self.latency is not None,
            "latency_table", "stand beside a latency, which it is of", f"'{self.latency_table}'",
            "Give --latency.",
        )  # fmt: skip
        require(
            self.max_drop is None or self.min_quality is None,
            "max_drop",
            "be left out beside min_quality: each says how good the model must stay",
            self.max_drop,
        )
        if self.max_drop is not None:
            require(self.max_drop >= 0, "max_drop", "be at least 0 points", self.max_drop)
        if self.budget is not None:
            require(self.budget > 0, "budget", "be above 0 seconds", self.budget)

    @property
    def costs(self) -> dict[str, Target]:
        """The goals of cost that were given, by name."""
        found = {name: getattr(self, name) for name in COSTS}
        return {name: target for name, target in found.items() if target is not None}

    @property
    def label(self) -> str:
        """What was asked for, as names of files tell it: "latency0_5x-drop1", "front"."""
        parts = [f"{name.partition('_')[2] or name}{target}" for name, target in self.costs.items()]
        if self.max_drop is not None:
            parts.append(f"drop{number_text(self.max_drop)}")
        if self.min_quality is not None:
            parts.append(f"quality{number_text(self.min_quality)}")
        parts += ["untrained"] if self.no_train else []
        return "-".join(parts or ["front"]).replace(".", "_")

    @property
    def judged(self) -> bool:
        """Whether a quality is asked for."""
        return self.max_drop is not None or self.min_quality is not None
