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
        "--data",
        "a name (digits, fashion_mnist, mnist, cifar10, cifar100, tfds:NAME); a folder of images "
        "by class, of IDX or TFRecord files; an .npz, .csv, .parquet or .tfrecord file; "
        "package.module:function",
    )
    task: str = option(
        AUTO,
        "--task",
        "what labels mean, where they and the model do not tell: multiclass, binary, multilabel, "
        "regression, segmentation, tagging, masks, reconstruction, custom, unlabelled; of several "
        "outputs NAME=TASK,NAME=TASK",
        left_open=AUTO,
    )
    normalize: str = option(
        "auto",
        "--normalize",
        "how inputs are scaled: standardize (per channel, by training statistics), unit (pixels "
        "to [0, 1]), symmetric (to [-1, 1]), center (minus the mean per channel), caffe or torch "
        "(ImageNet's means, as in keras.applications), none; auto: standardize for new models; "
        "for a model that exists what its run stored, else what scores best on validation data",
        choices=Choices("normalization", NORMALIZATIONS),
    )
    val_fraction: float = option(
        0.15,
        "--val-fraction",
        "share of the training part to hold out where there is no validation part",
        unit="share",
    )
    test_fraction: float = option(
        0.2,
        "--test-fraction",
        "share to hold out for the test where the source has no test part",
        unit="share",
    )
    group_column: str = option(
        "",
        "--group-column",
        "the column of a table (or NAME_train of an .npz) whose equal values stay in one part: a "
        "person, a recording, a site; it is no input",
    )
    time_column: str = option(
        "",
        "--time-column",
        "the column of a table (or NAME_train of an .npz) to split by time: the latest examples "
        "are the test part, those before them the validation part; it is no input",
    )
    metric: str = option(
        "",
        "--metric",
        "selection metric; default: the task's first (accuracy, mean_iou, r2, ...); of "
        "several outputs like box.r2; of a compiled model's metrics -NAME where less is better",
    )
    label: NameList = option(
        (),
        "--label",
        "the column of a table, or the feature of records, that is the label; several with commas: "
        "columns of one label, or a label for each of a model's outputs, by the outputs' names; "
        "default: the one called label, y or target",
    )
    resize: tuple[int, int] | None = option(
        None,
        "--resize",
        "height and width that images of a folder or of records become of: 96,96; default: they "
        "must have one size",
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

    def require_source(self) -> None:
        """Check that a data source is given.

        Raises:
            InputError: There is none.
        """
        require(
            bool(self.source),
            "data",
            "be named: a data set, a folder, a file or module:function",
            "none",
            "Give --data (in Python: data, or a plan with data.source).",
        )
