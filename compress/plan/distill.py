"""Plan section: who teaches during fine-tuning, what, and how much."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.core.errors import InputError
from compress.core.plugins import HINTS, LOGIT_LOSSES
from compress.plan.fields import joined, listed, option, require, require_choice, settle
from compress.plan.ramp import Ramp

NO_LOSS = "none"
CACHES = ("auto", "memory", "disk", "off")


@dataclass(frozen=True)
class DistillOptions:
    """Who teaches during fine-tuning, and how much.

    The loss is (1 - w) x label loss + w x loss on logits + the hints, each with its weight.
    `temperature`, `weight` and `hint_weight` are numbers, or ramps: "8:2" goes from 8 to 2
    during the training, "0:0.7@20%" reaches 0.7 after a fifth of it and stays.
    """

    teacher: tuple[str, ...] = option(
        ("auto",),
        "--teacher",
        "a .keras file, or several with commas (double quotes around a name with a comma); auto: "
        "the best candidate of the run, or the unpruned model itself; none: labels only",
    )
    teacher_weights: str = option(
        "", "--teacher-weights", "of several teachers, with commas; default: equal"
    )
    loss: str = option("kd", "--distill-loss", "on logits: " + ", ".join((*LOGIT_LOSSES, NO_LOSS)))
    temperature: float | str = option(4.0, "--temperature", "softens both distributions")
    weight: float | str = option(
        0.7, "--distill-weight", "share of the teacher's term in the loss, in [0, 1]"
    )
    hints: tuple[str, ...] = option((), "--hints", "losses on features: " + ", ".join(HINTS))
    hint_weight: float | str = option(
        1.0, "--hint-weight", "factor over each hint's own usual weight"
    )
    pairs: tuple[str, ...] = option(
        (),
        "--hint-pairs",
        "student_layer=teacher_layer, with commas; default: by resolution and depth",
    )
    cache: str = option(
        "auto",
        "--teacher-cache",
        "where the teacher's outputs lie: memory, disk, off (it runs at every step), or auto: "
        "memory up to --cache-limit, disk above; always off under --augment",
    )
    cache_limit: int = option(
        1024, "--cache-limit", "MiB of teacher outputs kept in memory; or 2GB, 2GiB", least=0,
        most=2**30, why="that is a pebibyte", unit="MiB",
    )  # fmt: skip

    def __post_init__(self) -> None:
        settle(self)
        LOGIT_LOSSES.require(self.loss, (NO_LOSS,))
        for name in self.hints:
            HINTS.require(name)
        require_choice("teacher cache", self.cache, CACHES)
        temperature = self.ramp("temperature")
        require(temperature.smallest > 0, "temperature", "be above 0", self.temperature)
        weight = self.ramp("weight")
        within = weight.smallest >= 0 and weight.largest <= 1
        require(within, "distill_weight", "be in [0, 1]", self.weight)
        require(
            self.ramp("hint_weight").smallest >= 0, "hint_weight", "be at least 0", self.hint_weight
        )
        self.parsed_pairs()
        self.parsed_teacher_weights()
        given: Any = self.teacher
        if isinstance(given, str):
            object.__setattr__(self, "teacher", listed(given))
        if len(self.teacher) > 1 and {"auto", "none"} & {*self.teacher}:
            raise InputError(
                "teacher must be auto, none, or files alone. "
                f"Received: '{joined(self.teacher)}'. Name every file."
            )
        if self.pairs and not self.hints:
            raise InputError("hint_pairs must come with hints. Give hints too, or no pairs.")

    def ramp(self, name: str) -> Ramp:
        """Returns `temperature`, `weight` or `hint_weight` as a ramp."""
        return Ramp.parse(name, getattr(self, name))

    def parsed_pairs(self) -> list[tuple[str, str]]:
        """Returns the pairs of (student layer, teacher layer).

        Raises:
            InputError: One is no "student=teacher".
        """
        pairs = []
        for text in self.pairs:
            student, sign, teacher = (part.strip() for part in text.partition("="))
            if not (student and sign and teacher):
                raise InputError(
                    f"A hint pair must be student_layer=teacher_layer. Received: '{text}'."
                )
            pairs.append((student, teacher))
        return pairs

    def teacher_files(self) -> list[Path]:
        """Returns the files that `teacher` names; none for "auto" and "none"."""
        return [Path(name) for name in self.teacher if name not in ("auto", "none")]

    @property
    def automatic(self) -> bool:
        """Whether the teacher is left to the pipeline."""
        return self.teacher == ("auto",)

    def parsed_teacher_weights(self) -> list[float]:
        """Returns the teachers' weights; empty: equal ones.

        Raises:
            InputError: One is no number above 0.
        """
        try:
            weights = [float(part) for part in self.teacher_weights.split(",") if part.strip()]
        except ValueError:
            weights = [0.0]
        if any(not 0 < weight < 1e30 for weight in weights):
            raise InputError(
                "teacher_weights must be numbers above 0, with commas. "
                f"Received: '{self.teacher_weights}'."
            )
        return weights
