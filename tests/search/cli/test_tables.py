"""Tables at 80 and 120 columns: columns are left out, and no name is ever cut."""

from __future__ import annotations

import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from compress.core.atomic_files import read_json, write_json
from compress.measure import Analysis
from compress.measure.counting import LayerCost
from compress.prune.channels.coupling.blocks import ProtectedBlock
from compress.prune.channels.coupling.groups import FrozenUnits
from compress.prune.channels.report import BlockRow, CouplingReport, GroupRow
from compress.report.terminal import ReportTable, render_costs, render_coupling
from search.study.directory import Candidate, FinalTraining, SearchFolder
from tests.compress.report.test_file_selection import run_with
from tests.compress.report.test_report import latency
from tests.search.cli.terminal import on_terminal

WIDTHS = (80, 120)
STEM = "mobilenet_v3_small-c0_25x-p2_4"
FILES = [f"{STEM}.{name}" for name in ("float32", "dynamic", "onnx_int8")]
LAYERS = [
    "backbone/expanded_conv_10_squeeze_excite_conv",
    "backbone/expanded_conv_10_depthwise_batch_norm",
    "multi_head_attention_of_the_last_block",
]


def printed(part: RenderableType, width: int) -> str:
    out = StringIO()
    Console(file=out, width=width, markup=False, emoji=False).print(part)
    return out.getvalue()


def run(path: Path) -> SearchFolder:
    """A run whose front has long choices, and whose files have long names."""
    run_with(path, [(name, 0.96, 0.94, 9000, 1.0) for name in FILES])
    folder = SearchFolder(path)
    times = {name: latency(1.25).to_json() for name in FILES}
    write_json(folder.latency, {**times, FILES[0]: latency(1.0).to_json()})
    for number in range(3):
        choices = {
            "stage_0_separable_convolution": True,
            "stage_1_kernel_size": 3,
            "learning_rate": 0.00123456,
            "weight_decay": 0.0001,
            "optimizer": "nesterov",
        }
        folder.write_candidate(
            Candidate(f"{number:04d}", "complete", choices, 1, macs=10 + number, params=30_000_000,
                      val={"accuracy": 0.9 + number / 100}, size_bytes=123_456)
        )  # fmt: skip
    record = read_json(folder.plan_path)
    record["plan"]["search"] = {"objectives": ["accuracy", "macs", "size_bytes"], "epochs": 3}
    write_json(folder.plan_path, record)
    folder.write_final(
        FinalTraining("0002", 0, 1, 3, 2, {"accuracy": 0.9}, {"accuracy": 0.91}, 1.0)
    )
    return folder


def cost_tables(path: Path) -> tuple[RenderableType, list[str]]:
    kinds = ("Conv2D", "BatchNormalization", "MultiHeadAttention")
    layers = tuple(
        LayerCost(name, kind, (112, 112, 960), 10**9, 10**6, 10**6, sparse_macs=10**9)
        for name, kind in zip(LAYERS, kinds, strict=True)
    )
    shares = {name.rpartition("/")[2]: 0.3 for name in LAYERS}
    return render_costs("m", Analysis(layers), shares, "ONNX Runtime"), LAYERS


def coupling_tables(path: Path) -> tuple[RenderableType, list[str]]:
    makers, more = tuple(LAYERS), tuple(f"{name}_2" for name in LAYERS)
    coupled = CouplingReport(
        (GroupRow(LAYERS[0], "channels", makers, more, 960, 960, "the last axis is fixed"),),
        (FrozenUnits("m", "model output 'probabilities_of_all_thousand_classes'", 1000, makers),),
        (), (), 10**6, 10**5, (0.4,), 10, 0.1, (),
        (BlockRow("backbone/expanded_conv_10_add", more, ("expanded_add",), 0.12, 0.345),),
        (ProtectedBlock("backbone/expanded_conv_11_add", makers, "it is a shortcut"),),
    )  # fmt: skip
    names = [*makers, "'probabilities_of_all_thousand_classes'", "12.0 %"]
    names += [f"backbone/expanded_conv_{number}_add" for number in (10, 11)]
    return render_coupling(coupled), names


def space_tables(path: Path) -> tuple[RenderableType, list[str]]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    from search.cli.space import render_description
    from search.spaces.describe import Description, Parameter, SampleCosts

    name = "stage_2_squeeze_and_excite_ratio"
    parameters = (
        Parameter(name, CategoricalDistribution(("hard_swish_with_bias", "relu6", 3)), "stages>=2"),
        Parameter("learning_rate", FloatDistribution(1e-5, 0.1, log=True), f"{name}=relu6"),
    )
    costs = SampleCosts({name: "relu6"}, 10, 20)
    found = Description(
        "cnn", "digits", (8, 8, 1), parameters, 10, None, (1, 2), (3, 4), 0, costs, True
    )
    return render_description(found), [name, "learning_rate", "hard_swish_with_bias", "relu6"]


def test_of_two_columns_of_long_names_one_stays(tmp_path: Path) -> None:
    part, _ = coupling_tables(tmp_path)
    narrow, wide = printed(part, 80), printed(part, 120)
    assert f"{LAYERS[0]}_2" not in narrow
    assert "Slices weights of" in narrow.partition("Not shown at 80 columns: ")[2]
    assert all(f"{name}_2" in wide for name in LAYERS)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("make", [cost_tables, coupling_tables, space_tables])
def test_names_stand_whole_in_every_table(
    make: Callable[[Path], tuple[RenderableType, list[str]]], width: int, tmp_path: Path
) -> None:
    part, names = make(tmp_path)
    text = printed(part, width)
    assert "…" not in text
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    for name in names:
        assert any(name in line for line in lines), name
    # no word is broken: each is one of those that a terminal of any width shows
    words = re.sub(r"Not shown at.*?have\s+them\.|─", "", text, flags=re.DOTALL).split()
    assert set(words) <= set(printed(part, 2000).split())


@pytest.mark.slow
def test_the_report_on_a_terminal(tmp_path: Path) -> None:
    folder = run(tmp_path / "run")
    for width in WIDTHS:
        text = on_terminal("report", folder.path.name, columns=width, cwd=tmp_path)
        lines = text.splitlines()
        assert len(lines) <= 25
        # paths and commands are never broken
        assert max(len(line) for line in lines if line[:4] not in ("Ship", "Next")) <= width
        for name in FILES:
            assert any(line[2:].startswith(name) for line in lines), name
        assert any(line.startswith("Ship    run/exports/") for line in lines)
        assert "Report  run/report.html" in lines


def grid() -> ReportTable:
    """Four columns of 10, 5, 6 and 7: 34 columns with the gaps."""
    table = ReportTable("", ("Name", "a", "Kind", "Time"), ("Name",), drop=("a", "Kind"))
    for number in range(2):
        table.add_row((f"0123456.{number}0", "12345", "litert", "1.23 us"))
    return table


@pytest.mark.parametrize(
    ("width", "first", "missing"),
    [
        (34, "0123456.00  12345  litert  1.23 us", ""),
        (33, "0123456.00  litert  1.23 us", "a"),
        # without Kind there is room for the less important one again
        (26, "0123456.00  12345  1.23 us", "Kind"),
        (25, "0123456.00  1.23 us", "a, Kind"),
    ],
)
def test_columns_go_in_order_and_come_back(width: int, first: str, missing: str) -> None:
    lines = [line.strip() for line in printed(grid(), width).splitlines()]
    assert first in lines
    note = f"Not shown at {width} columns: {missing}. A wider terminal and --out have them."
    assert (note in " ".join(lines)) == bool(missing)
    assert ("Not shown" in " ".join(lines)) == bool(missing)


def test_a_name_wider_than_the_terminal_goes_on_in_the_next_line() -> None:
    name = "x" * 30 + "y" * 30
    made = ReportTable("", ("Model", "n"), ("Model",))
    made.add_row((name, "1"))
    text = printed(made, 40)
    assert "".join(line[:38].strip() for line in text.splitlines()).count(name) == 1
    assert max(map(len, text.splitlines())) <= 40


def test_an_empty_table_has_its_heads() -> None:
    assert "Model" in printed(
        ReportTable("Files", ("Model", "Size"), ("Model",), wrap=("Size",)), 80
    )


def test_wide_letters_take_two_columns() -> None:
    made = ReportTable("", ("Model", "n", "m"), ("Model",), drop=("m",))
    made.add_row(("模型" * 5, "1", "123456"))  # 20 columns wide
    assert "123456" in printed(made, 20 + 2 + 1 + 2 + 6)
    assert "123456" not in printed(made, 20 + 2 + 1 + 2 + 5)


def test_texts_are_on_the_left_and_numbers_on_the_right() -> None:
    table = ReportTable("", ("name", "size"), left=("name",))
    table.add_row(("a", "1"))
    table.add_row(("longer", "1234"))
    lines = [line.rstrip() for line in printed(table, 40).splitlines() if line.strip()]
    assert lines[0] == "name    size"
    assert lines[-2:] == ["a          1", "longer  1234"]
