"""`shrink` with format int8-qat: the net whose int8 file is the best is trained for integers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compress.data import Dataset
from compress.shrinking import final_evaluation
from compress.shrinking.final_evaluation import describe_rounding_loss
from compress.shrinking.goals import MetricConstraint
from compress.shrinking.shrink import shrink

QUICK: dict[str, Any] = {
    "round_to": 2, "latency_budget": 0.5, "seed": 1, "min_kept": 0.2, "channel_tries": 2,
    "repair": 128,
}  # fmt: skip
FORMATS = ["float32", "int8", "int8-qat"]


def test_what_rounding_alone_takes_is_told_with_what_can_be_done() -> None:
    def net(name: str, plain: float, whole: float | None) -> Any:
        val = {"float32": {"accuracy": plain}}
        val |= {} if whole is None else {"int8": {"accuracy": whole}}
        return SimpleNamespace(
            name=name, val=val, get_metric=lambda kind, metric: val[kind][metric]
        )

    bar = MetricConstraint("accuracy", 0.9, None)
    some = [net("a", 0.83, 0.70), net("b", 0.88, 0.875), net("c", 0.9, None), net("d", 0.9, 0.88)]
    told = describe_rounding_loss(bar, some, "float32")
    assert "validation accuracy: a (13.0 pp), d (2.0 pp). Format int8-qat" in told
    assert describe_rounding_loss(bar, some[1:3], "float32") == ""
    # the file may be better than the net's floats: nothing is lost
    assert describe_rounding_loss(bar, [net("e", 0.8, 0.85)], "float32") == ""
    many = [net(str(place), 0.9, 0.85) for place in range(5)]
    assert "and 2 more. Format int8-qat" in describe_rounding_loss(bar, many, "float32")


@pytest.mark.matrix
def test_a_net_without_training_is_calibrated(
    trained: Any, digits: Dataset, tmp_path: Path
) -> None:
    result = shrink(
        trained, digits, macs=0.5, out=tmp_path / "out", no_train=True, formats=FORMATS, **QUICK
    )
    rows = {row.artifact.id: row for row in result.report.rows}
    (whole,) = (item for item in rows if item.endswith(".int8-qat"))
    assert whole.removesuffix("-qat") in rows
    assert rows[whole].artifact.agreement == 1.0
    assert rows[whole].latency is not None


@pytest.mark.slow
def test_the_model_itself_may_be_the_net(trained: Any, digits: Dataset, tmp_path: Path) -> None:
    # as int8 it is smaller than that
    result = shrink(
        trained, digits, size=0.9, out=tmp_path / "out", no_train=True,
        formats=["int8", "int8-qat"], **QUICK,
    )  # fmt: skip
    assert result.met
    rows = {row.artifact.id: row.artifact for row in result.report.rows}
    assert rows["net.int8-qat"].baseline == "net.float32"


@pytest.mark.slow
def test_a_net_is_trained_once_more(trained: Any, digits: Dataset, tmp_path: Path) -> None:
    options = {
        "macs": 0.6, "out": tmp_path / "out", "formats": FORMATS, "qat_epochs": 1,
        "finetune_epochs": 1, **QUICK,
    }  # fmt: skip
    result = shrink(trained, digits, **options)
    found = [row.artifact for row in result.report.rows if row.artifact.format == "int8-qat"]
    assert len(found) == 1
    assert found[0].val["accuracy"] > 0.8
    # the same command again: nothing is made anew
    again = shrink(trained, digits, **options)
    assert again.outcome.chosen == result.outcome.chosen


@pytest.mark.parametrize(
    ("whole", "channels", "kind"),
    [(True, None, "dense"), (False, None, "tuned"), (False, {"groups": []}, "pruned")],
)
def test_a_file_tells_what_its_model_is(whole: bool, channels: Any, kind: str) -> None:
    candidate = SimpleNamespace(name="m-a", whole=whole, channels=channels, val={})
    builder = SimpleNamespace(job=SimpleNamespace(name="m"), read_model=lambda _: None)
    variant = final_evaluation._build_variant(SimpleNamespace(builder=builder), candidate)  # type: ignore[arg-type]
    assert (variant.kind, variant.stem, variant.model_name) == (kind, "m" if whole else "m-a", "m")
