"""What a search writes of its candidates, and of those that are trained anew after it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypedDict

from compress.run.records import Record, too_low, unknown_value

COMPLETE, REJECTED, FAILED = "complete", "rejected", "failed"
STOPPED, DUPLICATE = "stopped", "duplicate"
LOST = "lost"
"""Stands in the place of a record: the trial runs again under another number."""
STATES = (COMPLETE, REJECTED, FAILED, STOPPED, DUPLICATE, LOST)


# what reports read of the tables inside records; further keys are left as they are
class _Epoch(TypedDict, total=False):
    epoch: int
    val: dict[str, float] | None


@dataclass(frozen=True)
class Candidate(Record):
    """One sampled model: what it is, what it costs, how well it validated.

    Attributes:
        id: Its number in the study, as file names carry it ("0005").
        state: "complete" (trained), "stopped" (trained in part: others were better),
            "rejected" (too costly, untrained), "duplicate" (of a candidate that ended before),
            "failed" or "lost" (with its node; never among a folder's candidates).
        reason: Why it was stopped, rejected or failed, or what it repeats.
        choices: What the sampler chose, by parameter name.
        seed: Seed of its initial weights and batch order.
        macs: Counted at batch 1.
        params: Counted.
        size_bytes: Of its float32 .tflite file, where a limit or an objective asks for it.
        latency_ms: Median of that file on LiteRT, one thread, before training: measured, or
            estimated from times of the parts of the model that the search is around.
        estimated: Names of costs that are estimates.
        unsupported: What `macs` does not include, by name.
        val: Validation quality, by name; of a duplicate only where the original was complete.
        best_epoch: Whose weights were kept; 0: those before, of a model that came trained.
        history: One record an epoch.
        seconds: Wall time of building and training.
        device: What it was trained on.
        notes: What was done other than asked.
        ended: When it ended, in seconds since the epoch; None in records of older versions.
    """

    id: str
    state: str
    choices: dict[str, Any]
    seed: int
    reason: str = ""
    macs: int | None = None
    params: int | None = None
    size_bytes: int | None = None
    latency_ms: float | None = None
    unsupported: tuple[str, ...] = ()
    estimated: tuple[str, ...] = ()
    val: dict[str, float] = field(default_factory=dict)
    best_epoch: int | None = None
    history: tuple[dict[str, Any], ...] = field(default=(), metadata={"shape": tuple[_Epoch, ...]})
    seconds: float = 0.0
    device: str = ""
    notes: tuple[str, ...] = ()
    ended: float | None = None

    def flaw(self) -> str:
        """See `Record.flaw`."""
        return unknown_value("state", self.state, STATES) or too_low(
            self, 0, "seed", "macs", "params", "size_bytes", "latency_ms", "seconds"
        )

    @property
    def is_trial(self) -> bool:
        """Whether it cost training: rejected ones and repeats did not."""
        return self.state not in (REJECTED, DUPLICATE)


@dataclass(frozen=True)
class Final(Record):
    """One training of a front's candidate after the search, to the full budget.

    Attributes:
        model: The candidate's id.
        place: 0, 1, ...: which of its trainings.
        seed: Seed of its initial weights and batch order.
        epochs: Trained.
        best_epoch: Whose weights were kept: the last where validation data were trained on.
        on_validation: Trained on training and validation part.
        val: Validation quality; empty where validation data were trained on.
        test: Test quality of the Keras model, by name.
        seconds: Wall time.
    """

    model: str
    place: int
    seed: int
    epochs: int
    best_epoch: int
    on_validation: bool
    val: dict[str, float]
    test: dict[str, float]
    seconds: float

    def flaw(self) -> str:
        """See `Record.flaw`."""
        return too_low(self, 0, "place", "seed", "epochs", "seconds")


def final_name(model: str, place: int) -> str:
    """Returns the name of one of a model's final trainings: "0005-final2"."""
    return f"{model}-final{place}"
