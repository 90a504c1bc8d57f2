"""Plan section: data source, splits, scaling and task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from compress.plan.conversion import NameList
from compress.plan.fields import Choices, RemovedOption, option, require, validate_fields
from compress.plugins import TASKS

AUTO = "auto"
"""Task name that stands for the task inferred from labels and the model's head."""
NORMALIZATIONS = (
    "auto",
    "standardize",
    "unit",
    "symmetric",
    "center",
    "caffe",
    "torch",
    "none",
)


@dataclass(frozen=True)
class DataOptions:
    """Source of the examples, their splits and scaling, and the task."""

    REMOVED: ClassVar[dict[str, RemovedOption]] = {
        "skip_damaged": RemovedOption(
            "--skip-damaged",
            "A corrupt image ends the run, and all of them are named at once. Delete or replace "
            "them.",
            unused_values=(0.0,),
        ),
    }

    source: str = option(
        "",
        "data set: a name, file, folder or package.module:function (see docs/howto/data.md)",
        flat_name="data",
    )
    task: str = option(
        AUTO,
        "task, if labels and model do not say (docs/howto/data.md); several outputs: "
        "NAME=TASK,NAME=TASK",
        left_open=AUTO,
    )
    normalize: str = option(
        "auto",
        "input scaling; auto: standardize new models, for given models the stored or best-"
        "scoring one",
        choices=Choices("normalization", NORMALIZATIONS),
    )
    val_fraction: float = option(
        0.15,
        "share of the training data to hold out for validation, if the source has no such "
        "part; in (0, 1)",
        unit="share",
    )
    test_fraction: float = option(
        0.2,
        "share of the data to hold out as test data, if the source has no such part; in (0, 1)",
        unit="share",
    )
    group_column: str = option(
        "",
        "column whose equal values (a person, a site) stay in one part; not used as an input",
    )
    time_column: str = option(
        "",
        "column to split by time: latest examples are test data, those before validation; not"
        " an input",
    )
    metric: str = option(
        "",
        "selection metric, like accuracy or r2 (several outputs: box.r2); default: the task's"
        " first",
    )
    label: NameList = option(
        (),
        "columns or features that hold the labels, with commas; default: label, y or target",
    )
    resize: tuple[int, int] | None = option(
        None,
        "height and width to resize images to, in pixels, like 96,96; default: all have one size",
    )

    def __post_init__(self) -> None:
        validate_fields(self)
        for kind in self.task_names:
            if kind != AUTO:
                TASKS.require(kind)
        if self.resize is not None:
            sizes = all(size >= 1 for size in self.resize)
            require(len(self.resize) == 2 and sizes, "resize", "be height,width", self.resize)
        require(
            not (self.group_column and self.time_column),
            "group_column",
            "be left out beside time_column: parts are split by groups or by time",
            self.group_column,
        )
        for name in ("val_fraction", "test_fraction"):
            value = getattr(self, name)
            require(0 < value < 1, name, "be in (0, 1)", value)

    @property
    def task_names(self) -> tuple[str, ...]:
        """Tasks of all outputs: ("regression", "auto") for "box=regression,class=auto"."""
        return tuple(item.rpartition("=")[2] for item in self.task.split(","))

    @property
    def is_task_inferred(self) -> bool:
        """Whether the task of any output is inferred, at least in part."""
        return self.task == AUTO or "=" in self.task
