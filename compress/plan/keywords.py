"""Plan options as keywords of the public functions, with their types and help texts.

This module defines which function takes which option. The build generates classes from it for
editors, type checkers and the documentation: `settings.py`, which is not committed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from compress.core.errors import InputError, build_removed_name_error
from compress.plan import Plan, WeightOptions
from compress.plan.bench import BenchPlan
from compress.plan.fields import PlanField, RemovedOption, list_plan_fields, list_removed_options
from compress.plan.nesting import FORMER_NAMES, build_unknown_option_error
from compress.plan.shrink import ShrinkPlan

SectionT = TypeVar("SectionT")
PlanT = TypeVar("PlanT")


@dataclass(frozen=True)
class Keywords:
    """Plan options that a function takes as keywords.

    Attributes:
        function_name: Name of the function.
        plan: Class of the plan with the options.
        sections: Sections whose fields are keywords under their own names. If empty, all options of
            the plan are keywords under their command line names (`--round-to` is `round_to`).
        excluded: Paths ("channels.target") of options that the function takes in another way or
            does not use.
        removed: What to use instead of other arguments of earlier versions, by name.
    """

    function_name: str
    plan: type[Any]
    sections: tuple[str, ...] = ()
    excluded: frozenset[str] = frozenset()
    removed: Mapping[str, str] = field(default_factory=dict)

    def list_options(self) -> dict[str, PlanField]:
        """Return the options by keyword.

        Raises:
            ValueError: Two options have the same keyword.
        """
        options: dict[str, PlanField] = {}
        for leaf in list_plan_fields(self.plan):
            if leaf.path in self.excluded or (self.sections and leaf.section not in self.sections):
                continue
            name = leaf.name if self.sections else leaf.flat_name
            if name in options:
                raise ValueError(f"{self.function_name}: '{name}' is of two sections: rename one.")
            options[name] = leaf
        return options

    def sort_by_section(self, settings: Mapping[str, Any]) -> dict[str | None, dict[str, Any]]:
        """Return keywords by section and field; the section None is the plan itself.

        Args:
            settings: Values by keyword.

        Raises:
            InputError: A keyword is unknown (the message names the closest match) or belongs to
                another function (the message names it).
        """
        self.require_known(settings)
        options, by_section = self.list_options(), dict[str | None, dict[str, Any]]()
        for name, value in settings.items():
            leaf = options[name]
            by_section.setdefault(leaf.section, {})[leaf.name] = value
        return by_section

    def require_known(self, names: Iterable[str], argument_names: Iterable[str] = ()) -> None:
        """Raise an error for keywords that the function does not take.

        Args:
            names: Received keywords.
            argument_names: Names of the function's other arguments, for suggestions.

        Raises:
            InputError: A keyword is unknown (the message names the closest match) or belongs to
                another function.
        """
        options = self.list_options()
        for name in names:
            if name not in options:
                raise self._build_unknown_error(name, (*argument_names, *options))

    def apply_to(self, plan: PlanT, settings: Mapping[str, Any]) -> PlanT:
        """Return a plan with values replaced by keywords.

        Args:
            plan: The plan to start from.
            settings: Values by keyword.

        Raises:
            InputError: See `sort_by_section`; or a value violates a rule.
        """
        by_section = self.sort_by_section(settings)
        changes = by_section.pop(None, {})
        for section, values in by_section.items():
            assert section is not None
            changes[section] = replace(getattr(plan, section), **values)
        return replace(plan, **changes) if changes else plan  # type: ignore[type-var]

    def build_section(
        self,
        name: str,
        base: SectionT | None,
        section_class: type[SectionT],
        settings: Mapping[str, Any],
    ) -> SectionT:
        """Return a section of the plan with values replaced by keywords.

        Args:
            name: Name of the section.
            base: The section to start from. None starts from the defaults.
            section_class: Class of the section.
            settings: Values by keyword; those of other sections are ignored.

        Raises:
            InputError: See `sort_by_section`; or a value violates a rule.
        """
        values = self.sort_by_section(settings).get(name, {})
        if base is None:
            return section_class(**values)
        return replace(base, **values) if values else base  # type: ignore[type-var]

    def _list_removed_options(self) -> dict[str, RemovedOption]:
        """Return the options that the function took in earlier versions, by keyword."""
        removed = {}
        for path, item in list_removed_options(self.plan).items():
            section, _, name = path.rpartition(".")
            if not self.sections:
                removed[item.keyword] = item
            elif section in self.sections:
                removed[name] = item
        return removed

    def _build_unknown_error(self, name: str, choices: Iterable[str]) -> InputError:
        """Return the error for a keyword: removed, renamed, of another function, or misspelt."""
        removed = self._list_removed_options()
        if name in removed:
            return removed[name].build_error(name)
        if name in self.removed:
            return build_removed_name_error("argument", name, self.removed[name])
        choices = tuple(choices)
        if FORMER_NAMES.get(name) in choices:
            return build_unknown_option_error(f"option of {self.function_name}()", name, choices)
        takers = [
            other.function_name
            for other in FUNCTIONS
            if other is not self and name in other.list_options()
        ]
        if takers:
            functions = " or ".join(f"{taker}()" for taker in takers)
            return InputError(
                f"{self.function_name}() must be given options of its own. Received: '{name}', "
                f"which {functions} takes."
            )
        return build_unknown_option_error(f"option of {self.function_name}()", name, choices)


_DATA = frozenset({"data.source", "data.test_fraction"})
_TUNING = frozenset({"finetune.as_long"})

PRUNE_CHANNELS = Keywords(
    "prune_channels",
    Plan,
    ("channels",),
    frozenset({"channels.target", "channels.criterion"}),
    removed={
        "amount": "A target says what is kept. Give macs=, with scope='layer' for the same share "
        "of each layer.",
        "finetune": "It was called between several steps. Call prune_channels and train in turn.",
    },
)
PRUNE_WEIGHTS = Keywords(
    "prune_weights",
    Plan,
    ("weights", "finetune", "data"),
    _DATA | _TUNING | {"data.task"},
)
WEIGHT_PRUNER = Keywords("WeightPruner", Plan, ("weights",))
DISTILL = Keywords(
    "distill",
    Plan,
    ("distill", "finetune", "data"),
    _DATA | _TUNING | {"distill.teacher", "data.task"},
)
QUANTIZE = Keywords(
    "quantize",
    Plan,
    ("quantize", "distill", "finetune", "data"),
    _DATA
    | _TUNING
    | {
        "data.task", "distill.teacher", "finetune.epochs", "finetune.learning_rate",
        "finetune.own_train_step",
    },
)  # fmt: skip
EXPORT = Keywords("export", Plan, ("export",))
COMPRESS_MODEL = Keywords("compress_model", Plan, excluded=frozenset({"data.source"}))
BENCH = Keywords("bench", BenchPlan)
SHRINK = Keywords(
    "shrink",
    ShrinkPlan,
    excluded=frozenset(
        {
            "channels.scope",
            "channels.target",
            "data.source",
            "finetune.as_long",
            "finetune.own_train_step",
            *(f"weights.{item.name}" for item in fields(WeightOptions)),
        }
    ),
    removed={"crew": "Give workers=paretune.Workers(4)."},
)

FUNCTIONS = [
    PRUNE_CHANNELS, PRUNE_WEIGHTS, WEIGHT_PRUNER, DISTILL, QUANTIZE, EXPORT, COMPRESS_MODEL, BENCH,
    SHRINK,
]  # fmt: skip
"""All functions with keywords; `search.plan` adds those of a search."""
