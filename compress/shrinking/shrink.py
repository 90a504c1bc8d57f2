"""`shrink`: say what is needed, get the file to ship."""

from __future__ import annotations

import hashlib
import shutil
import time as clock
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from compress.core.arguments import check_arguments
from compress.core.errors import FeasibleError, InputError
from compress.core.summary import OnProgress, Readable, Summary, silent
from compress.measure.verdict import Outcome
from compress.model.copies import float32_model
from compress.model.io import load_model, save_model
from compress.plan.fields import from_nested
from compress.plan.keywords import SHRINK
from compress.plan.shrink import ShrinkPlan
from compress.prune.channels.selection.target import check_feasible
from compress.run.compressed import Compressed
from compress.run.directory import RunFolder
from compress.run.records import read_record
from compress.shrinking.case import Case
from compress.shrinking.estimates import device_times
from compress.shrinking.finishing import finished, recorded
from compress.shrinking.job import UserData, refuse_learnt, run_on_model
from compress.shrinking.net import ShrinkFolder
from compress.shrinking.planner import Pace, planner_for
from compress.shrinking.recipes import read_recipe, save_recipe
from compress.shrinking.workshop import Crew

if TYPE_CHECKING:
    import keras

    from compress.plan.settings import ShrinkSettings
    from compress.report import Report


@check_arguments(
    keywords=("latency", "size", "peak_memory", "macs", "params"), labels="plan", options=SHRINK
)
def shrink(
    model: keras.Model | str | Path,
    data: Any = None,
    plan: ShrinkPlan | None = None,
    *,
    val: Any = None,
    test: Any = None,
    groups: Any = None,
    time: Any = None,
    recipe: str | Path | None = None,
    crew: Crew | None = None,
    on_progress: OnProgress = silent,
    **settings: Unpack[ShrinkSettings],
) -> ShrinkResult:
    """Make a model small or fast enough, and says which file to ship.

    Measures where the time goes, chooses widths and blocks by what the outputs lose for what is
    saved, repairs, fine-tunes with the original as teacher, and measures every file that it makes.

    Args:
        model: A Keras model, or a `.keras` or `.h5` file.
        data: (x, y), a stream, a `Dataset` or what `--data` takes, see `as_dataset`; default:
            what `plan.data` names. x alone is enough with `no_train`.
        plan: Everything else; keywords go over it.
        val: The validation part beside arrays or a stream; default: split off by seed.
        test: The test part, likewise.
        groups: What is kept in one part, (n,): persons, recordings; see `as_dataset`.
        time: What parts are split by, (n,); see `as_dataset`.
        recipe: Name of a recipe ("mobile-int8", "twice-as-fast", "untrained"), or a TOML file
            that `ShrinkResult.save_recipe` wrote: what no keyword says; not beside a plan.
        crew: Who trains nets beside each other: `paretune.Workers(4)`, or of a Ray cluster;
            default: this process, one after another. Without a budget what comes out is the same
            but for the order of sums; with one, more nets are tried.
        on_progress: Called with (what is done, share of it in [0, 1]).
        **settings: The goal (`latency=0.5`, `size="200KB"`, `macs=0.25`, `params="1M"`,
            `max_drop=1.0`, `min_quality=0.92`; none: a front), `budget="30m"`, `no_train=True`,
            and the options of `paretune shrink` by their names there.

    Shapes:
        x: (n, ...), as the model takes them; y: see `as_dataset`.

    Returns:
        The model, the file to ship, whether the goal was met, and the report. Called again with
        the same plan, finished work is not repeated.

    Raises:
        FeasibleError: No choice comes to the goal (before any training), or the model is no
            better than guessing.
        InputError: The model, the data, the plan or the folder break a rule; nothing has been
            written then.
        RunFailed: No file could be made.

    Example:
        >>> small = shrink(
        ...     model, x, macs=0.5, no_train=True, formats=["float32"], round_to=2,
        ...     latency_budget=0.5, out=folder / "shrunk",
        ... )
        >>> small.met, small.file.suffix
        (True, '.tflite')

    Reference:
        Shen et al. 2022, "Structural Pruning via Latency-Saliency Knapsack": widths by saliency
        for time. Here damage is measured after repair, time on this machine, and the choice is
        put right by the time of its own file.
    """
    if recipe is not None:
        if plan is not None:
            raise InputError(f"recipe must stand without a plan. Received: {recipe} and a plan.")
        plan = from_nested(ShrinkPlan, read_recipe(recipe))
    plan = SHRINK.over(plan or ShrinkPlan(), settings)
    if isinstance(data, (str, Path)):
        plan, data = replace(plan, data=replace(plan.data, source=str(data))), None
    if plan.goal.no_train:
        plan = replace(plan, finetune=replace(plan.finetune, epochs=0))
    timing = tuple(dict.fromkeys((plan.runtime, *plan.latency.runtimes)))
    plan = replace(plan, latency=replace(plan.latency, runtimes=timing))
    how: Mapping[str, Any] = SHRINK.sorted(settings).get("data", {})
    handed_over = UserData(data, val, test, how, groups, time)
    if crew is not None:
        crew.check(plan)

    def check(case: Case) -> dict[str, str]:
        refuse_learnt(case.val_learnt)
        check_feasible(case.coupling, case.plan.channels)
        case.device = device_times(case)
        table = case.plan.goal.latency_table
        return {} if table is None else {"times": hashlib.sha256(table.read_bytes()).hexdigest()}

    def work(case: Case, folder: ShrinkFolder, command: str) -> None:
        if folder.outcome.exists():
            return
        began, pace = clock.monotonic(), Pace.resumed(case.plan.goal.budget, folder.spent)
        if pace.budget is not None:
            case.work = replace(case.work, progress=pace.noting(folder.spent, on_progress))
        beside = nullcontext() if crew is None else crew.at_work(case, folder, data is not None)
        with beside as trainers:
            planner = planner_for(case, folder, pace, trainers)
            finished(planner, planner.run(), command, began)
            shutil.rmtree(folder.path / "unfinished", ignore_errors=True)

    case, folder, report = run_on_model(
        model, handed_over, plan, ShrinkFolder, work, on_progress=on_progress, check=check
    )
    outcome = read_record(folder.outcome, Outcome)
    small = outcome.chosen.rpartition(".")[0]
    files = {
        row.artifact.format: folder.path / row.artifact.file
        for row in report.rows
        if row.artifact.id.rpartition(".")[0] == small
    }
    file = folder.path / outcome.file
    (kept,) = file.parent.glob("*.keras")
    return ShrinkResult(
        load_model(kept), file, outcome.met, folder.path, report, files, outcome, case.plan
    )


@dataclass(frozen=True, repr=False)
class ShrinkResult(Readable):
    """What `shrink` made.

    Attributes:
        model: The smaller Keras model whose file is shipped.
        file: The file to use, in `folder / "ship"`.
        met: Whether the goal was met, beyond noise: on test data the whole interval of the drop is
            inside the limit. `outcome.state` tells "met within noise" from "missed".
        folder: Where all nets, files, records and the report lie.
        report: Rows of every file, the original's among them.
        files: Format -> file of the shipped model, those that were made.
        outcome: What was asked for and what came of it.
        plan: What was done.
    """

    model: keras.Model
    file: Path
    met: bool
    folder: Path
    report: Report
    files: dict[str, Path]
    outcome: Outcome
    plan: ShrinkPlan

    def screen(self) -> Summary:
        """Return what is worth a screen: the goal, what came of it, every file."""
        found = self.report.screen()
        return replace(
            found,
            title=self.outcome.title,
            lines=(*self.outcome.lines, f"ship this: {self.file}", found.lines[-1]),
        )

    def save_recipe(self, path: str | Path) -> None:
        """Write what led here as a recipe for other models: goal, options, the format shipped.

        Args:
            path: A file ending in .toml; `recipe=` and `paretune shrink --recipe` take it.
        """
        save_recipe(self.plan, path, (self.outcome.chosen.rpartition(".")[2],))

    def save(self, path: str | Path) -> Path:
        """Copy what is in ship/ to another folder, and returns the file in it.

        Args:
            path: The folder; files of these names in it are replaced.
        """
        place = Path(path)
        place.mkdir(parents=True, exist_ok=True)
        for file in self.file.parent.iterdir():
            shutil.copyfile(file, place / file.name)
        return place / self.file.name


def goal_stage(case: Case, folder: RunFolder, command: str) -> Compressed:
    """Shrink one model to its plan's goal, and records files and qualities in a run's folder.

    Its nets and files lie in shrunk/<name>/ there; an interrupted one goes on when the same call
    is made again. A model that cannot come to the goal is recorded as it is, with the reason.
    Times that choose are measured here, beside whatever else the machine does; those that the
    report shows are measured by `measure_stage`, when nothing else runs.

    Args:
        case: The model.
        folder: The run's.
        command: What the report shows for repeating it.

    Raises:
        FeasibleError: The model is no better than guessing, or below the quality asked for.
        RunFailed: No file could be made.
    """
    began = clock.monotonic()
    own = ShrinkFolder(folder.path / "shrunk" / case.name)
    for place in (own.models, own.exports, own.nets):
        place.mkdir(parents=True, exist_ok=True)
    own.clear()
    planner = planner_for(case, own, Pace(case.plan.goal.budget))
    try:
        nets = planner.run()
    except FeasibleError as error:
        planner.notes.append(f"nothing was removed: {error}")
        nets = [planner.shop.whole(case.name, planner.formats)]
    record = recorded(planner, nets, folder, command, began)
    best = next((net for net in nets if net.name == record.compressed), nets[0])
    save_model(float32_model(planner.shop.model_of(best)), folder.model_file(record.small))
    shutil.rmtree(own.path / "unfinished", ignore_errors=True)
    return record
