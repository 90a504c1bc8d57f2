"""What of a plan can be checked before any work: alone, against the data, then against models.

Nothing here imports TensorFlow, which takes seconds, before a model has to be looked at.
`compress` has the model that it will shrink. A run has none yet: it asks models of its space (the
baseline, the smallest, the largest), and what none of them can do is refused. What only some of
them can do (a pattern of layer names, say) is left out where a model cannot, and its notes say so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from compress.core.device import check_device
from compress.core.errors import FeasibleError, InputError
from compress.core.interpreter import FORMATS, require_packages
from compress.core.memory_budget import current_budget
from compress.data import Dataset, check_source
from compress.measure.runtimes import runtimes
from compress.model.activations import OVERHEAD, activation_bytes
from compress.model.kinds import check_model_file
from compress.plan import LayerPair, LayerShare, Plan
from compress.plugins import LOGS, RUNTIMES
from compress.prune.channels import check_channels
from compress.prune.channels.criteria import CRITERIA
from compress.run.directory import RunFolder
from compress.shrinking.case import Subject
from compress.train.augment import check_augment
from compress.train.loop import parts_of_a_batch

if TYPE_CHECKING:
    import keras

PlanT = TypeVar("PlanT", bound=Plan)
COPIES = 6
"""Copies of a model's weights that are held at a time: the model, pruned ones, what files hold."""
CONVERTER = 800_000_000
"""Bytes of the process that converts models and of its fork that works, each with TensorFlow."""
Run = Callable[[Subject], None]


def told(plan: PlanT, data: Dataset) -> PlanT:
    """Returns a plan that says of which task its data are, so that it is told once."""
    if not plan.data.told:
        return plan
    each = ",".join(f"{item.name}={item.kind}" for item in data.outputs)
    return replace(plan, data=replace(plan.data, task=each or data.kind))


def preflight(
    plan: Plan, folder: RunFolder, models: Iterable[Path] = (), *, data: bool, files: bool
) -> None:
    """Checks files, packages, the device and the output folder that a plan names.

    Args:
        plan: Of a compression, or of a run that does more.
        folder: Where its results go.
        models: Files beside the teachers'.
        data: Whether the plan's data are read (else they were handed over).
        files: Whether files are exported and timed.

    Raises:
        InputError: A file does not exist or has another suffix, the data source cannot be found,
            there is no GPU, or the folder cannot be written to or holds other files.
        MissingDependency: A package that a format, a runtime or a log needs is not installed.
    """
    if data:
        check_source(plan.data)
    for path in (*models, *plan.distill.teacher.files):
        check_model_file(path)
    if files:
        for name in plan.export.formats:
            require_packages(FORMATS.get(name, ()), f"format {name}")
        for name in plan.latency.runtimes:
            RUNTIMES.require_installed(name)
            if not RUNTIMES[name].exported:
                timed = ", ".join(item.name for item in runtimes() if item.exported)
                raise InputError(
                    f"runtimes of exported files must be among {timed}. Received: {name}."
                )
    for name in plan.log:
        LOGS.require_installed(name)
    check_device(plan.device)
    folder.check_usable()


def check_training(plan: Plan, data: Dataset) -> None:
    """Checks what every training of a plan asks of the data.

    Raises:
        InputError: Augmentation or class weights do not suit them.
    """
    from compress.train.steps import class_weights

    check_augment(plan.finetune.augment, data)
    class_weights(data, plan.finetune.class_weights)


def check_by_data(plan: Plan, data: Dataset) -> None:
    """Checks what compression needs, as far as no model is needed for it.

    Raises:
        InputError: A name is unknown, or an option does not suit the data or another option.
    """
    from compress.distillation.setup import teacher_shares
    from compress.prune.weights import update_times

    check_training(plan, data)
    CRITERIA[plan.channels.ranking]
    teacher = plan.distill.teacher
    if teacher.files or teacher.automatic:
        teacher_shares(plan.distill, len(teacher.files) or 1)
    if plan.finetune.epochs == 0:
        return
    if plan.weights.sparsity > 0:
        steps = max(1, len(data.train) // plan.finetune.batch_size)
        update_times(plan.weights, plan.finetune.epochs_for(steps) * steps, steps)


def check_memory(plan: Plan, data: Dataset, model: keras.Model) -> None:
    """Check that the memory budget holds the work on a model, one example at a time.

    Raises:
        InputError: It does not; the message names the memory that would do.
    """
    sizes = list(data.input_shapes.values())
    weights = 4 * model.count_params()
    needed = CONVERTER + COPIES * weights + int(OVERHEAD * activation_bytes(model, sizes).live)
    current_budget().require(needed, f"work on model '{model.name}'")
    if plan.finetune.epochs != 0:
        parts_of_a_batch(model, min(plan.finetune.batch_size, len(data.train)), sizes=sizes)


@dataclass(frozen=True)
class Check:
    """One thing that a model can do or not.

    Attributes:
        what: As notes name it: "channel limit 'conv1*=0.3'".
        run: Raises InputError where the model cannot.
        without: The plan without it; None where a model that cannot do it is not compressed
            otherwise.
    """

    what: str
    run: Run
    without: Callable[[Any], Any] | None = None


def checks_of(plan: Plan, data: Dataset, teachers: Sequence[keras.Model | None]) -> Iterator[Check]:
    """Yields what a plan asks of each model.

    Args:
        plan: Sections channels, weights and distill.
        data: Of the models.
        teachers: One of them will teach; None: the model itself.
    """
    if plan.channels.active:
        yield Check(f"channels {plan.channels.target}", _channels(plan))
        for field, what in (("limits", "channel limit"), ("exclude", "channel exclusion")):
            for pattern in getattr(plan.channels, field):
                yield Check(
                    f"{what} '{pattern}'",
                    # of a target that any model meets
                    _channels(plan, target_metric="amount", target=0.0, **{field: (pattern,)}),
                    partial(_without, section="channels", field=field, item=pattern),
                )
    if plan.weights.sparsity > 0:
        for override in plan.weights.overrides:
            yield Check(
                f"pruning override '{override}'",
                _weights(plan, override),
                partial(_without, section="weights", field="overrides", item=override),
            )
    if plan.distill.teacher.automatic or plan.distill.teacher.files:
        for pair in plan.distill.pairs:
            drop = partial(_without, section="distill", field="pairs", item=pair)
            yield Check(f"hint pair '{pair}'", _hints(plan, data, teachers, (pair,)), drop)
        if plan.distill.hints and not plan.distill.pairs:
            yield Check(f"hints {', '.join(plan.distill.hints)}", _hints(plan, data, teachers, ()))


def check_by_models(
    plan: Plan,
    data: Dataset,
    subjects: Sequence[Subject],
    teachers: Sequence[keras.Model] = (),
) -> None:
    """Checks that of what the plan asks each thing can be done by one of the models.

    Args:
        plan: Sections channels, weights and distill.
        data: Of the models.
        subjects: The model that will be compressed, or some of those that may be.
        teachers: Known ones, of which the first gives hints; else the models themselves.

    Raises:
        InputError: No model can; the error is that of the first.
    """
    for check in checks_of(plan, data, teachers[:1] or [subject.model for subject in subjects]):
        errors = [error for item in subjects if (error := _failure(check, item)) is not None]
        if subjects and len(errors) == len(subjects):
            raise errors[0]


def fitting(
    plan: PlanT, data: Dataset, subject: Subject, teacher: keras.Model | None
) -> tuple[PlanT, list[str]]:
    """Leaves out of a plan for many models what one of them cannot do.

    Targets stay: a model that cannot meet one is a case of its own (`FeasibleError`).

    Returns:
        The plan for this model, and notes on what was left out.
    """
    notes = []
    for check in checks_of(plan, data, [teacher]):
        error = None if check.without is None else _failure(check, subject)
        if error is not None and not isinstance(error, FeasibleError):
            assert check.without is not None
            plan = check.without(plan)
            notes.append(f"{check.what} was left out for this model: {error}")
    return plan, notes


def _without(plan: PlanT, *, section: str, field: str, item: object) -> PlanT:
    """Returns a plan without one item of a list; hints go with the last of their pairs."""
    options = getattr(plan, section)
    kept = tuple(other for other in getattr(options, field) if other != item)
    more = {"hints": ()} if field == "pairs" and not kept else {}
    return replace(plan, **{section: replace(options, **{field: kept}, **more)})


def _channels(plan: Plan, **changes: Any) -> Run:
    options = replace(plan.channels, **{"limits": (), "exclude": (), **changes})
    return lambda subject: check_channels(subject.coupling, options)


def _weights(plan: Plan, override: LayerShare) -> Run:
    from compress.prune.weights import find_targets

    options = replace(plan.weights, overrides=(override,))

    def run(subject: Subject) -> None:
        find_targets(subject.model, include=options.include, overrides=options.overrides)

    return run


def _hints(
    plan: Plan, data: Dataset, teachers: Sequence[keras.Model | None], pairs: tuple[LayerPair, ...]
) -> Run:
    from compress.distillation import make_hints

    options = replace(plan.distill, pairs=pairs)

    def run(subject: Subject) -> None:
        model, errors = subject.model, []
        for teacher in teachers:
            try:
                make_hints(model, teacher or model, options, data.task, plan.seed)
            except InputError as error:
                errors.append(error)
        if len(errors) == len(teachers):
            raise errors[0]

    return run


def _failure(check: Check, subject: Subject) -> InputError | None:
    try:
        check.run(subject)
    except InputError as error:
        return error
    return None
