"""Options of the plan as keywords of the public functions, with their types and help texts.

Which function takes which option is said here, once. The build makes classes from it for editors,
type checkers and the documentation: `settings.py`, which is not committed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from compress.core.errors import InputError, unknown_name
from compress.plan import Plan, WeightOptions
from compress.plan.bench import BenchPlan
from compress.plan.fields import PlanField, RemovedOption, list_removed, plan_fields
from compress.plan.shrink import ShrinkPlan

SectionT = TypeVar("SectionT")
PlanT = TypeVar("PlanT")


@dataclass(frozen=True)
class Keywords:
    """Which options of a plan a function takes as keywords.

    Attributes:
        function: Its name.
        plan: The class of plan that has the options.
        sections: Whose fields are keywords by their own names; (): every option of the plan, by
            the names that the command line gives it (`--round-to` is `round_to`).
        without: Paths ("channels.target") of options that the function takes in another way, or
            has no use for.
        renamed: Path -> keyword, where two sections have a field of one name.
    """

    function: str
    plan: type[Any]
    sections: tuple[str, ...] = ()
    without: frozenset[str] = frozenset()
    renamed: Mapping[str, str] = field(default_factory=dict)

    def leaves(self) -> dict[str, PlanField]:
        """Return the option behind each keyword."""
        found: dict[str, PlanField] = {}
        for leaf in plan_fields(self.plan):
            if leaf.path in self.without or (self.sections and leaf.section not in self.sections):
                continue
            for name in self._names(leaf):
                if name in found:
                    raise ValueError(f"{self.function}: '{name}' is of two sections: rename one.")
                found[name] = leaf
        return found

    def sorted(self, settings: Mapping[str, Any]) -> dict[str | None, dict[str, Any]]:
        """Sort keywords by section: section -> field -> value; None: of the plan itself.

        Raises:
            InputError: One is unknown (the nearest is named), or of another function (which is
                named).
        """
        self.require_known(settings)
        leaves, found = self.leaves(), dict[str | None, dict[str, Any]]()
        for name, value in settings.items():
            leaf = leaves[name]
            home = found.setdefault(leaf.section, {})
            if leaf.name in home:
                raise InputError(
                    f"An option must be given once. Received: '{name}' and another name of "
                    f"'{leaf.path}'."
                )
            home[leaf.name] = value
        return found

    def require_known(self, names: Iterable[str], own: Iterable[str] = ()) -> None:
        """Refuse keywords that a function does not take.

        Args:
            names: Of keywords that are no arguments by name.
            own: The function's arguments by name, which may be meant too.

        Raises:
            InputError: One is unknown (the nearest is named first), or of another function.
        """
        leaves = self.leaves()
        for name in names:
            if name not in leaves:
                raise self._build_unknown_error(name, (*own, *leaves))

    def over(self, plan: PlanT, settings: Mapping[str, Any]) -> PlanT:
        """Return a plan with keywords put over it.

        Raises:
            InputError: See `sorted`; or a value breaks a rule.
        """
        found = self.sorted(settings)
        changes = found.pop(None, {})
        for section, values in found.items():
            assert section is not None
            changes[section] = replace(getattr(plan, section), **values)
        return replace(plan, **changes) if changes else plan  # type: ignore[type-var]

    def section(
        self,
        name: str,
        given: SectionT | None,
        kind: type[SectionT],
        settings: Mapping[str, Any],
    ) -> SectionT:
        """Return the section called `name` with those keywords put over it that are its own.

        Args:
            name: Of the section.
            given: What the keywords go over; None: the section's defaults.
            kind: Of the section.
            settings: Keywords, of other sections too.

        Raises:
            InputError: See `sorted`; or a value breaks a rule.
        """
        values = self.sorted(settings).get(name, {})
        if given is None:
            return kind(**values)
        return replace(given, **values) if values else given  # type: ignore[type-var]

    def _names(self, leaf: PlanField) -> tuple[str, ...]:
        if self.sections:
            return (self.renamed.get(leaf.path, leaf.name),)
        return tuple(flag.lstrip("-").replace("-", "_") for flag in leaf.flags)

    def _list_removed(self) -> dict[str, RemovedOption]:
        """List the options that the function took in earlier versions, by keyword."""
        removed = {}
        for path, item in list_removed(self.plan).items():
            section, _, name = path.rpartition(".")
            if not self.sections:
                removed[item.flat] = item
            elif section in self.sections:
                removed[name] = item
        return removed

    def _build_unknown_error(self, name: str, choices: Iterable[str]) -> InputError:
        removed = self._list_removed()
        if name in removed:
            return removed[name].build_error(name)
        takers = [
            other.function for other in FUNCTIONS if other is not self and name in other.leaves()
        ]
        if takers:
            functions = " or ".join(f"{taker}()" for taker in takers)
            return InputError(
                f"{self.function}() must be given options of its own. Received: '{name}', which "
                f"{functions} takes."
            )
        return unknown_name(f"option of {self.function}()", name, choices)


TRAINING = {"finetune.schedule": "learning_rate_schedule"}
_DATA = frozenset({"data.source", "data.test_fraction"})
_TUNING = frozenset({"finetune.as_long"})

PRUNE_CHANNELS = Keywords(
    "prune_channels",
    Plan,
    ("channels",),
    frozenset({"channels.target", "channels.target_metric", "channels.criterion"}),
)
PRUNE_WEIGHTS = Keywords(
    "prune_weights",
    Plan,
    ("weights", "finetune", "data"),
    _DATA | _TUNING | {"weights.schedule", "data.task"},
    TRAINING,
)
WEIGHT_PRUNER = Keywords(
    "WeightPruner", Plan, ("weights",), frozenset({"weights.schedule", "weights.recalibrate"})
)
DISTILL = Keywords(
    "distill",
    Plan,
    ("distill", "finetune", "data"),
    _DATA | _TUNING | {"distill.teacher", "data.task"},
    TRAINING,
)
QUANTIZE = Keywords(
    "quantize",
    Plan,
    ("quantize", "distill", "finetune", "data"),
    _DATA
    | _TUNING
    | {
        "data.task", "distill.teacher", "distill.teacher_weights", "finetune.epochs",
        "finetune.learning_rate", "finetune.own_train_step", "quantize.qat",
    },
    TRAINING,
)  # fmt: skip
EXPORT = Keywords("export", Plan, ("export",))
COMPRESS_MODEL = Keywords("compress_model", Plan, without=frozenset({"data.source"}))
BENCH = Keywords("bench", BenchPlan)
SHRINK = Keywords(
    "shrink",
    ShrinkPlan,
    without=frozenset(
        {
            "channels.scope",
            "channels.steps",
            "channels.target",
            "channels.target_metric",
            "data.source",
            "finetune.as_long",
            "finetune.own_train_step",
            *(f"weights.{item.name}" for item in fields(WeightOptions)),
        }
    ),
)

FUNCTIONS = [
    PRUNE_CHANNELS, PRUNE_WEIGHTS, WEIGHT_PRUNER, DISTILL, QUANTIZE, EXPORT, COMPRESS_MODEL, BENCH,
    SHRINK,
]  # fmt: skip
"""All of them; `search.plan` adds those of a search."""
