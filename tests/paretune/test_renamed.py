"""Former names of members of public classes: one line says the present name."""

from __future__ import annotations

from typing import Any

import pytest

import paretune as pt
from compress.core.summary import DisplayableResult
from compress.reconstruction import RepairReport

RENAMED = [
    (DisplayableResult, "screen", "build_summary"),
    (pt.SensitivityMap, "losses", "build_output_errors"),
    (pt.SensitivityMap, "tempered", "apply_power"),
    (pt.SensitivityMap, "scaled", "scale"),
    (pt.SensitivityMap, "screen", "build_summary"),
    (RepairReport, "line", "summarize"),
    (RepairReport, "screen", "build_summary"),
    (pt.Plan, "qat", "uses_qat"),
    (pt.Plan, "trained_formats", "qat_formats"),
    (pt.SearchPlan, "compression", "build_compression_plan"),
    (pt.SearchPlan, "to_goal", "build_shrink_plan"),
    (pt.SearchPlan, "rungs", "list_rungs"),
    (pt.SearchPlan, "qat", "uses_qat"),
    (pt.TrainSettings, "epochs_for", "count_epochs"),
]


@pytest.mark.parametrize(("kind", "former", "present"), RENAMED)
def test_a_former_name_is_answered_with_the_present_one(
    kind: Any, former: str, present: str
) -> None:
    assert hasattr(kind, present)
    item = kind.__new__(kind)
    with pytest.raises(AttributeError) as error:
        getattr(item, former)
    assert str(error.value) == (
        f"'{kind.__name__}' object has no attribute '{former}'. It is called '{present}' now."
    )


def test_other_names_are_refused_as_ever() -> None:
    with pytest.raises(AttributeError, match=r"'Plan' object has no attribute 'nothing'$"):
        _ = pt.Plan().nothing  # type: ignore[attr-defined]
