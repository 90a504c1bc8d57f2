"""Plan section: who teaches during fine-tuning, what, and how much."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from compress.core.errors import InputError
from compress.plan.fields import option, require, require_choice, settle
from compress.plan.forms import Given, Names, text_of
from compress.plan.layers import LayerPair
from compress.plan.ramp import Ramp
from compress.plan.teacher import AUTO, TeacherChoice
from compress.plugins import HINTS, LOGIT_LOSSES

NO_LOSS = "none"
CACHES = ("auto", "memory", "disk", "off")

Changing = Given[Ramp, Ramp | float | str]
"""A number, or one that changes: "8:2", "0:0.7@20%"."""
Teacher = TeacherChoice | str | Path | Iterable[str | Path] | None
Pair = str | LayerPair | tuple[str, str]


@dataclass(frozen=True)
class DistillOptions:
    """Who teaches during fine-tuning, and how much.

    The loss is (1 - w) x label loss + w x loss on logits + the hints, each with its weight.
    `temperature`, `weight` and `hint_weight` are numbers, or ramps: "8:2" goes from 8 to 2
    during the training, "0:0.7@20%" reaches 0.7 after a fifth of it and stays.
    """

    teacher: Given[TeacherChoice, Teacher] = option(
        AUTO,
        "--teacher",
        "a .keras file, or several with commas (double quotes around a name with a comma); auto: "
        "the best candidate of the run, else the unpruned model itself; none: labels only",
    )
    teacher_weights: Given[tuple[float, ...], Iterable[float] | str] = option(
        (), "--teacher-weights", "weights of several teachers, with commas; default: all equal"
    )
    loss: str = option(
        "kd",
        "--distill-loss",
        "distillation loss on logits: " + ", ".join((*LOGIT_LOSSES, NO_LOSS)),
    )
    temperature: Changing = option(
        Ramp.constant(4.0),
        "--temperature",
        "softens both distributions; 8:2 goes from 8 to 2 during the training",
    )
    weight: Changing = option(
        Ramp.constant(0.7),
        "--distill-weight",
        "share of the teacher's term in the loss, in [0, 1]; 0:0.7@20% reaches 0.7 after a fifth",
    )
    hints: Names = option((), "--hints", "distillation losses on features: " + ", ".join(HINTS))
    hint_weight: Changing = option(
        Ramp.constant(1.0), "--hint-weight", "factor on each hint's own usual weight"
    )
    pairs: Given[tuple[LayerPair, ...], Iterable[Pair] | Mapping[str, str]] = option(
        (),
        "--hint-pairs",
        "layers to compare, student_layer=teacher_layer, with commas; default: by resolution and "
        "depth",
    )
    cache: str = option(
        "auto",
        "--teacher-cache",
        "where the teacher's outputs are kept: memory, disk, off (it runs at every step), or "
        "auto: memory up to --cache-limit, disk above; always off under --augment",
    )
    cache_limit: int = option(
        1024, "--cache-limit", "MiB of teacher outputs to keep in memory; or 2GB, 2GiB", least=0,
        most=2**30, why="that is a pebibyte", unit="MiB",
    )  # fmt: skip

    def __post_init__(self) -> None:
        settle(self)
        LOGIT_LOSSES.require(self.loss, (NO_LOSS,))
        for name in self.hints:
            HINTS.require(name)
        require_choice("teacher cache", self.cache, CACHES)
        require(self.temperature.smallest > 0, "temperature", "be above 0", self.temperature)
        within = self.weight.smallest >= 0 and self.weight.largest <= 1
        require(within, "distill_weight", "be in [0, 1]", self.weight)
        require(self.hint_weight.smallest >= 0, "hint_weight", "be at least 0", self.hint_weight)
        require(
            all(0 < weight < 1e30 for weight in self.teacher_weights),
            "teacher_weights",
            "be numbers above 0, with commas",
            text_of(self.teacher_weights),
        )
        if self.pairs and not self.hints:
            raise InputError("hint_pairs must come with hints. Give hints too, or no pairs.")
