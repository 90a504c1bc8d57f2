"""Steps of a run with a time budget, their results, and the models that they make."""

from __future__ import annotations

from dataclasses import dataclass, field

from compress.run.records import Record
from search.scheduler.forecast import FileResult

TRIAL, EXPORT, CONTINUE, PRUNE, TUNE = "trial", "export", "continue", "prune", "tune"


@dataclass(frozen=True)
class Step(Record):
    """Step of a run, with the forecast of its gain and duration.

    Attributes:
        number: Number of the step, from 0.
        kind: "trial", "export", "continue", "prune" or "tune".
        model: Id of the candidate; "" for a trial, which makes one.
        share: Share of the candidate's MACs that is fine-tuned; 1: nothing is removed.
        epochs: Epochs of the further training, or of the fine-tuning; 0: there is none.
        teacher: Id of the candidate that is the teacher; "": none.
        begun: Seconds of the run when it began.
        seconds: Expected duration, with that of steps that it needs to pay off.
        reserved: Seconds of these for the steps that follow a pruning.
        gain: Expected gain of hypervolume.
        quality: Expected metric after fine-tuning; None: there is none.
    """

    number: int
    kind: str
    model: str = ""
    share: float = 1.0
    epochs: int = 0
    teacher: str = ""
    begun: float = 0.0
    seconds: float = 0.0
    reserved: float = 0.0
    gain: float = 0.0
    quality: float | None = None

    @property
    def rate(self) -> float:
        """Expected gain per second."""
        return self.gain / max(self.seconds, 1e-9)

    def describe(self) -> str:
        """Return the step as words: "prune 0003", "tune 0003 at 0.5x"."""
        words = [self.kind, self.model]
        if self.kind == TUNE and self.share < 1:
            words.append(f"at {self.share:g}x")
        return " ".join(filter(None, words))


@dataclass(frozen=True)
class SizeResult(Record):
    """One size of a candidate, pruned or not.

    Attributes:
        share: Share of the candidate's MACs that was asked for.
        quality: Selection metric of its float file on validation data.
        macs: Its MACs.
        files: Its files.
    """

    share: float
    quality: float
    macs: float
    files: tuple[FileResult, ...] = ()


@dataclass(frozen=True)
class StepResult(Record):
    """Result of a step.

    Attributes:
        model: Id of the candidate; "" if there is none.
        seconds: Its duration.
        sizes: What was made: the candidate itself (trial, export, continue), the pruned sizes, or
            the fine-tuned one. Empty: nothing.
        epochs: Epochs that were trained; a part of one if a time limit ended it.
        reason: Why nothing was made.
    """

    model: str
    seconds: float
    sizes: tuple[SizeResult, ...] = ()
    epochs: float = 0
    reason: str = ""


@dataclass(eq=False)
class ScheduledSize:
    """A size of a candidate, as it stands."""

    result: SizeResult
    is_tuned: bool = False


@dataclass(eq=False)
class ScheduledModel:
    """A trained candidate with its files and its pruned sizes.

    Attributes:
        name: Id of the candidate.
        quality: Selection metric of the Keras model on validation data.
        macs: MACs.
        epoch_seconds: Time of an epoch of its training.
        original: The unpruned model with its files; None: not exported yet.
        sizes: Its sizes by share; 1 is the unpruned model, fine-tuned.
        is_exported: Whether its files are of its last training.
        is_continued: Whether its training went on.
        is_pruned: Whether it was pruned.
        is_finished: Whether an error ended the work on it.
    """

    name: str
    quality: float
    macs: float
    epoch_seconds: float
    original: SizeResult | None = None
    sizes: dict[float, ScheduledSize] = field(default_factory=dict)
    is_exported: bool = False
    is_continued: bool = False
    is_pruned: bool = False
    is_finished: bool = False

    def list_files(self) -> list[tuple[float, FileResult]]:
        """Return all files with the share of the MACs that they keep."""
        originals = [] if self.original is None else [(1.0, item) for item in self.original.files]
        return originals + [
            (share, item) for share, size in self.sizes.items() for item in size.result.files
        ]
