"""What users hand over to a compression: the model, and the data that go with it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from compress.core.atomic_files import write_bytes
from compress.core.memory_budget import use_budget
from compress.data import DataOptions, Dataset
from compress.data.handed_over import is_bare
from compress.data.tasks import CUSTOM, UNLABELLED
from compress.model.compiled import CompiledOutput, compiled_model, compiled_outputs
from compress.model.graphs import as_graph
from compress.model.io import as_model, save_model
from compress.model.kinds import refuse_graphs
from compress.model.walk import weights_hash
from compress.plan import Plan
from compress.run.directory import RunFolder, run_in_own_folder
from compress.train.given import dataset_for, refuse_marks
from compress.train.scaling import load_for_model

if TYPE_CHECKING:
    import keras

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, eq=False)
class Given:
    """The model as the user gave it.

    Attributes:
        file: What is read: the user's file, or one that lies there for the time being.
        path: What records and messages call it: the user's file, or where it will be kept.
        folder: Of the results.
        facts: What it is known again by.
        model: The user's model, where it is no file.
    """

    file: Path
    path: Path
    folder: RunFolder
    facts: dict[str, str]
    model: keras.Model | None = None

    @cached_property
    def whole(self) -> keras.Model:
        """The model of the user's class, with what it was compiled with."""
        return compiled_model(self.path) if self.model is None else self.model

    def compiled(self, plan: Plan) -> Mapping[str, CompiledOutput]:
        """Returns what the model was compiled with; a file is asked where a plan needs it."""
        asked = self.model is not None or CUSTOM in plan.data.tasks
        return compiled_outputs(self.whole) if asked else {}

    @property
    def name(self) -> str:
        """In names of files."""
        return self.path.stem

    def keep(self) -> None:
        """Puts a model that lies in no file beside its results: the command shown names it."""
        if self.file != self.path:
            self.path.parent.mkdir(exist_ok=True)
            write_bytes(self.path, self.file.read_bytes())


def run_on_model(
    model: keras.Model | str | Path,
    plan: Plan,
    folder_type: type[RunFolder],
    work: Callable[[Given], ResultT],
) -> ResultT:
    """Run on a model in the run's own folder; a run that is refused leaves no files there.

    Args:
        model: A Keras model, or a path; default folders are named after it.
        plan: Says where results go, and what is done.
        folder_type: `RunFolder`, or a class that adds files to it.
        work: Called with the model and its folder.

    Returns:
        What `work` returns.

    Raises:
        InputError: It is no model, or the folder is another run's; or `work` raises it.
    """
    with tempfile.TemporaryDirectory() as place, use_budget(plan.memory):

        def run(out: Path) -> ResultT:
            folder = folder_type(out)
            folder.check(plan.command, plan)
            given = given_model(model, folder, Path(place))
            with folder.dropping_refused():
                return work(given)

        is_path = isinstance(model, (str, Path))
        name = Path(model).stem if is_path else as_model(model).name
        return run_in_own_folder(plan.out, f"runs/{plan.command}-{name}", run)


def given_model(model: keras.Model | str | Path, folder: RunFolder, place: Path) -> Given:
    """Takes a model as users hand it over.

    Args:
        model: A Keras model, or a path.
        folder: Of the results.
        place: Where a file of a model may lie for the time being.

    Raises:
        InputError: It is no model, or one that cannot be pruned.
    """
    if isinstance(model, (str, Path)):
        path = Path(model)
        refuse_graphs(path)  # before data are asked for, which would not help
        return Given(path, path, folder, {"model": str(model)})
    model = as_model(model)
    file = place / f"{model.name}.keras"
    graph = as_graph(model)
    save_model(graph, file)
    facts = {"model": model.name, "weights": weights_hash(graph)}
    return Given(file, folder.path / "given" / file.name, folder, facts, model)


@dataclass(frozen=True, eq=False)
class UserData:
    """Data as the user gave them.

    Attributes:
        data: None: what the plan names.
        val, test: Parts beside it; None: split off.
        how: Options of data that were given as keywords.
        groups, time: Of the examples, beside them.
    """

    data: Any
    val: Any = None
    test: Any = None
    how: Mapping[str, Any] | None = None
    groups: Any = None
    time: Any = None

    def dataset(self, given: Given, original: keras.Model, plan: Plan) -> Dataset:
        """Returns the data set for a model.

        Args:
            given: The model as it was given.
            original: As it was loaded.
            plan: Its section data, and the seed.

        Raises:
            InputError: They break a rule, or do not fit the model.
        """
        compiled = given.compiled(plan)
        if self.data is None:
            refuse_marks(self.groups, self.time)
            return load_for_model(given.path, plan.data, original, plan.seed, compiled)
        how = dict(self.how or {})
        if not isinstance(self.data, Dataset):
            how = {**_other_than_default(plan.data), **how}
        marks = {"groups": self.groups, "time": self.time}
        parts = {"val": self.val, "test": self.test, **marks, **how}
        if "task" not in parts and is_bare(self.data):
            parts["task"] = UNLABELLED
        return dataset_for(
            original, self.data, seed=plan.seed, testing=True, compiled=compiled, **parts
        )


def _other_than_default(options: DataOptions) -> dict[str, Any]:
    names = (
        "task", "label", "metric", "normalize", "val_fraction", "test_fraction", "group_column",
        "time_column",
    )  # fmt: skip
    values = {name: getattr(options, name) for name in names}
    return {name: value for name, value in values.items() if value != getattr(DataOptions, name)}
