"""The report from a folder made by hand."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from compress.core.atomic_files import read_json, write_json
from compress.measure import Latency, formatting
from compress.plan import Plan
from compress.report.live.charts import build_file_points
from compress.report.live.page import build_cards
from compress.report.text_report import describe_effect, describe_training
from compress.run.compressed_model import Artifact, CompressedModel
from search.plan import SearchPlan
from search.report import load_report, render
from search.study.directory import Candidate, SearchFolder


def artifact(model: str, variant: str, file_format: str, accuracy: float, gzipped: int) -> Artifact:
    name = model if variant == "dense" else f"{model}-p80"
    quality = dict.fromkeys(("accuracy", "f1_macro", "precision_macro", "recall_macro"), accuracy)
    return Artifact(
        f"{name}.{file_format}", model, variant, file_format, f"exports/{name}.tflite",
        f"{model}.float32", 2_000_000, 1000, 1000 if variant == "dense" else 300,
        0.0 if variant == "dense" else 0.8, ("odd (LSTM): no counting rule for this class",),
        4000, gzipped, quality, 0.01, 0.995, 200,
    )  # fmt: skip


def latency(ratio: float, spread: float = 0.01) -> Latency:
    return Latency(
        0.5 / ratio, 0.49 / ratio, 0.51 / ratio, 0.6, 0.4, ratio, ratio - spread, ratio + spread,
        "0001.float32", 24, 3, 144, 1, "A <CPU>", "LiteRT 1.0", "precision", (),
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> SearchFolder:
    made = SearchFolder(tmp_path / "run")
    shown = {
        "command": "paretune run --data x",
        "replay": "paretune search --warm-start r/{id}.json",
    }
    made.claim("run", SearchPlan(), {}, shown)
    write_json(
        made.data,
        {
            "source": "<script>x</script>", "input_shape": [8, 8, 1], "class_names": ["a", "b"],
            "counts": {"train": [5, 6], "val": [1, 1], "test": [2, 2]},
            "preprocess": {"formula": "f", "scale": 0.5, "mean": [0.1], "std": [1.0]},
            "fingerprint": "f", "notes": ["3 files skipped"],
        },
    )  # fmt: skip
    for number, (accuracy, macs) in enumerate([(0.7, 9), (0.9, 20), (0.8, 10), (0.8, 12)]):
        made.write_candidate(
            Candidate(f"{number:04d}", "complete", {"width": 8, "lr": 0.00123}, 1, macs=macs * 1000,
                      params=10, val={"accuracy": accuracy}, device="CPU X")
        )  # fmt: skip
    made.write_candidate(Candidate("0004", "rejected", {}, 1, "too many MACs", macs=10**9))
    made.write_candidate(Candidate("0005", "failed", {}, 1, "the loss is NaN"))
    files = [
        artifact("0001", "dense", "float32", 0.91, 3000),
        artifact("0001", "dense", "int8", 0.905, 1500),
        artifact("0001", "pruned", "float32", 0.90, 1000),
        artifact("0001", "pruned", "int8", 0.89, 500),
    ]
    made.write_compressed(
        CompressedModel(
            "0001", "0001 (0.9000 validation accuracy)",
            {"dense": {"accuracy": 0.9}, "pruned": {"accuracy": 0.89}},
            {"pruned": [{"layer": "mid", "size": 100, "zeros": 80}],
             "kept": [{"layer": "bn", "kind": "BatchNormalization", "reason": "not pruned"}],
             "sparsity": 0.8},
            3, 5, "paretune compress run/candidates/0001.keras", 12.0, "CPU X", ("a note",),
            tuple(files),
        )
    )  # fmt: skip
    ratios = {files[0].id: 1.0, files[1].id: 2.0, files[2].id: 1.004, files[3].id: 2.0}
    write_json(made.latency, {name: latency(ratio).to_json() for name, ratio in ratios.items()})
    return made


def test_axes_of_the_chart_have_units(folder: SearchFolder) -> None:
    points = build_file_points(load_report(folder.path))
    assert points is not None
    axes = {axis.key: axis for axis in points.axes}
    assert (axes["latency_ms"].unit, axes["latency_ms"].tick) == (" ms", "~s")
    assert (axes["size_bytes"].unit, axes["speedup"].unit) == (" B", "x")
    assert axes["accuracy"].tick == ".1%"


def test_front_and_states(folder: SearchFolder) -> None:
    report = load_report(folder.path)
    # 0003 costs more than 0002 at the same accuracy
    assert report.front == ("0000", "0002", "0001")
    assert report.summarize_trials() == (
        "4 candidates trained, 1 rejected before training, 1 failed, 3 on the front"
    )


def test_json_and_csv_hold_the_figures(folder: SearchFolder) -> None:
    render(folder.path)
    content = json.loads((folder.path / "report.json").read_text())
    last = content["files"][-1]
    assert (last["id"], last["speedup"], last["gzip_bytes"]) == ("0001-p80.int8", 2.0, 500)
    assert last["latency"]["device"] == "A <CPU>"
    assert content["columns"]["latency_ms"]["kind"] == "measured"
    assert content["columns"]["macs"]["kind"] == "counted"
    assert (last["macs"], last["flops"]) == (2_000_000, 4_000_000)
    assert set(content["columns"]) <= set(last)
    with open(folder.path / "candidates.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["id"] for row in rows if row["record"] == "file"] == [
        "0001.float32", "0001.int8", "0001-p80.float32", "0001-p80.int8",
    ]  # fmt: skip
    assert float(rows[-1]["latency_ms"]) == pytest.approx(0.25)
    assert rows[4]["reason"] == "too many MACs"


def test_the_card_of_a_file_is_about_that_file(folder: SearchFolder) -> None:
    cards = build_cards(load_report(folder.path), [{"model": "0001", "training": "longer"}])
    files = cards["0001"]["files"]
    original, pruned = files["0001.int8"], files["0001-p80.int8"]
    assert original["effect"] == "0001.int8 is the original model in int8, not pruned."
    assert original["training"] == ""
    # 91 % of the float32 original, 89 % of this file; 0.91 - 0.90 would be the float32 file's
    assert pruned["effect"].startswith("int8 ")
    assert "-2.00 pp of test accuracy" in pruned["effect"]
    assert "-1.00 pp" not in pruned["effect"]
    assert pruned["training"] == "longer"


class Page(HTMLParser):
    """Collects tags that could load something, and unclosed ones."""

    def __init__(self) -> None:
        super().__init__()
        self.loading: list[str] = []
        self.open: list[str] = []
        self.scripts: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "script":
            self.scripts.append(dict(attrs))
        if tag in {"link", "img", "iframe", "object", "embed"}:
            self.loading.append(tag)
        for key, value in attrs:
            if key in {"src", "href", "xlink:href"} and not str(value).startswith("#"):
                self.loading.append(f"{key}={value}")
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()


def test_html_is_self_contained_and_escaped(folder: SearchFolder) -> None:
    render(folder.path)
    text = (folder.path / "report.html").read_text("utf-8")
    page = Page()
    page.feed(text)
    assert page.loading == []
    assert page.open == []
    # data, plotly, ours: what runs is named by the policy, see test_injection.py
    assert page.scripts == [{"type": "application/json", "id": "paretune-data"}, {}, {}]
    bare = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert "@import" not in bare
    assert not re.search(r"url\((?!#)", bare)
    assert "<script>" not in bare
    assert "&lt;script&gt;x" in bare
    for expected in (
        "paretune compress run/candidates/0001.keras",
        "paretune search --warm-start r/0001.json",
        "bn kept: not pruned",
        "mid: 80 of 100 weights are zero",
        "odd (LSTM): no counting rule",
        "A &lt;CPU&gt;",
        "3 files skipped",
        "the loss is NaN",
        "a note",
    ):
        assert expected in bare, expected


def test_the_first_line_says_what_to_ship_and_nothing_that_is_not_so(folder: SearchFolder) -> None:
    """Slower is called slower, and a tie a tie."""
    report = load_report(folder.path)
    row = next(row for row in report.rows if row.artifact.id != row.artifact.baseline)
    name = row.artifact.id
    for path in folder.compressed.iterdir():  # whatever its time, no other is good enough
        content = read_json(path)
        for item in content["artifacts"]:
            item["val"] = {"accuracy": 0.9 if item["id"] == name else 0.7}
        write_json(path, content)
    timed = read_json(folder.latency)
    base = row.artifact.baseline
    for ratio, told in (
        (2.0, f"against {base}: 2.00x faster;"),
        (0.25, f"against {base}: 4.00x slower;"),
        (1.0, f"against {base}: no difference in"),
    ):
        write_json(folder.latency, {**timed, name: latency(ratio).to_json()})
        render(folder.path)
        page = (folder.path / "report.html").read_text("utf-8")
        (answer,) = re.findall(r'<div class="answer">(.*?)</div>', page, re.DOTALL)
        assert answer.startswith("<p>Test accuracy: ")
        tiles = page[page.index('class="tiles"') : page.index("<h2>")]
        assert told in tiles
        assert f"<code>{folder.path / row.artifact.file}</code>" in tiles


def test_a_light_page_says_the_same_without_scripts(folder: SearchFolder) -> None:
    render(folder.path)
    live = (folder.path / "report.html").read_text("utf-8")
    render(folder.path, light=True)
    light = (folder.path / "report.html").read_text("utf-8")
    page = Page()
    page.feed(light)
    assert page.scripts == []
    assert len(light) < len(live) / 5

    def words(text: str) -> list[str]:
        bare = re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", text, flags=re.DOTALL)
        return bare.split()

    assert words(light) == words(live)


def test_rendering_twice_gives_the_same_bytes(folder: SearchFolder) -> None:
    render(folder.path)
    names = ("report.html", "report.json", "candidates.csv", "pareto.png")
    before = {name: (folder.path / name).read_bytes() for name in names}
    render(folder.path)
    assert before == {name: (folder.path / name).read_bytes() for name in names}


def test_verdicts_say_what_zeros_change(folder: SearchFolder) -> None:
    text = describe_effect(load_report(folder.path), "0001")
    # of the kernels that were pruned, and of all parameters: 300 of 1000 are not zero
    assert (
        "float32 (80 % of the pruned kernels, 70 % of all parameters are zero): -1.00 pp of "
        "test accuracy after 5 more epochs of training, 1.00x smaller" in text
    )
    assert "no difference in time that this run can detect" in text
    assert "2.00x faster (250 us [245, 255]) where int8 alone gives 2.00x" in text


def lengths(folder: SearchFolder, **changes: Any) -> str:
    """Returns what the report says about training, with another record."""
    path = folder.compressed / "0001.json"
    write_json(path, {**read_json(path), **changes})
    report = load_report(folder.path)
    return describe_training(report, report.compressed[0])


def test_each_net_of_several_is_said_to_be_trained_as_it_was(folder: SearchFolder) -> None:
    """The one that ships may be the model itself, where others were trained for long."""
    path = folder.compressed / "0001.json"
    content = read_json(path)
    small = [item for item in content["artifacts"] if item["variant"] == "pruned"]
    stem = small[0]["id"].rpartition(".")[0]
    text = lengths(folder, finetuned=0, dense_epochs=40, each={stem: 112, "other": 0})
    assert "for 40 epochs; the smaller model was fine-tuned for up to 112 more epochs" in text
    told = describe_effect(load_report(folder.path), "0001")
    assert "after 112 more epochs of training" in told
    assert "without training" not in told
    text = lengths(folder, finetuned=112, dense_epochs=40, each={stem: 0, "other": 0})
    assert "the smaller model was not fine-tuned" in text
    assert "without training" in describe_effect(load_report(folder.path), "0001")


def test_more_training_is_named_beside_what_was_gained(folder: SearchFolder) -> None:
    # a record of the first release: the last fine-tuning at least
    text = lengths(folder)
    assert "was trained is unknown; the smaller model was fine-tuned for 5 more epochs" in text
    assert "distilled from 0001" in text
    assert "The original was not trained on for as long" in text
    assert "a gain may come from training and the teacher" in text
    assert "at least 5 more" in lengths(
        folder, channels={"groups": [], "frozen": [], "unknown": []}
    )
    text = lengths(folder, finetuned=112, dense_epochs=1, teacher="")
    assert "trained for 1 epoch; the smaller model was fine-tuned for 112 more epochs" in text
    assert "may come from training." in text
    assert "from pretrained weights" in lengths(folder, dense_begun=True)
    # a stranger's model
    text = lengths(folder, dense_epochs=None, dense_begun=False)
    assert "for how many epochs the original was trained is unknown" in text
    # a gain is never compression's without a word
    content = read_json(folder.compressed / "0001.json")
    for item in content["artifacts"][2:]:
        item["test"] = dict.fromkeys(item["test"], 0.96)
    write_json(folder.compressed / "0001.json", content)
    assert "+5.00 pp of test accuracy after 112 more epochs of training, 1" in describe_effect(
        load_report(folder.path), "0001"
    )
    # the dense model trained as long: 0.96 against 0.97
    text = lengths(folder, as_long={"val": {"accuracy": 0.9}, "test": {"accuracy": 0.97}})
    assert "for as long, reaches test accuracy 97.00 %" in text
    assert "may come from" not in text
    told = describe_effect(load_report(folder.path), "0001")
    assert "+5.00 pp of test accuracy after 112 more epochs of training" in told
    assert "(-1.00 pp against the original trained as long)" in told
    render(folder.path)
    assert text in (folder.path / "report.html").read_text("utf-8").replace("&#39;", "'")


def test_zeros_are_told_as_a_share_of_everything(folder: SearchFolder) -> None:
    """13 % of all parameters may be what 80 % of some kernels are."""
    path = folder.compressed / "0001.json"
    content = read_json(path)
    for item in content["artifacts"][2:]:
        item["nonzero"] = 870
    write_json(path, content)
    report = render(folder.path)
    said = "80 % of the pruned kernels, 13 % of all parameters are zero"
    assert said in describe_effect(report, "0001")
    page = (folder.path / "report.html").read_text("utf-8")
    assert said in page
    assert "<small>13 % zero</small>" in page
    rows = json.loads((folder.path / "report.json").read_text("utf-8"))["files"]
    assert [row["zeros"] for row in rows] == pytest.approx([0, 0, 0.13, 0.13])
    assert "80 % sparsity" not in page


def test_the_baseline_is_named_as_it_is(folder: SearchFolder) -> None:
    from compress.report.text_report import describe_conditions

    assert "the original's float32 file" in describe_conditions(load_report(folder.path))
    text = folder.latency.read_text()
    folder.latency.write_text(text.replace('"baseline": "0001.float32"', '"baseline": "0001.int8"'))
    assert "the original's int8 file" in describe_conditions(load_report(folder.path))


def test_ranges_are_never_shown_as_intervals(folder: SearchFolder) -> None:
    """Of few instances: in the page, the tables, JSON and CSV."""
    from compress.report.text_report import describe_conditions

    content = json.loads(folder.latency.read_text())
    few = {name: {**value, "rounds": 6, "spread": "range"} for name, value in content.items()}
    folder.latency.write_text(json.dumps(few))
    report = render(folder.path)
    assert "median and range of 6 rounds, 3 instances a file: fewer than 10" in describe_conditions(
        report
    )
    assert "2.00x faster (250 us [range 245 to 255])" in describe_effect(report, "0001")
    page = (folder.path / "report.html").read_text("utf-8")
    assert "<small>[range 245 to 255]</small>" in page
    assert "median and 95 % interval" not in page
    stored = json.loads((folder.path / "report.json").read_text())
    assert {item["latency"]["spread"] for item in stored["files"]} == {"range"}
    with open(folder.path / "candidates.csv", newline="") as stream:
        spreads = [row["spread"] for row in csv.DictReader(stream)]
    assert spreads == [""] * 6 + ["range"] * 4


def test_tables_print(folder: SearchFolder) -> None:
    text = " ".join(str(load_report(folder.path)).split())
    assert "0001-p80.int8" in text
    assert "median on LiteRT 1.0, A <CPU>, 1 thread" in text


def test_a_search_alone_and_an_empty_run_render(tmp_path: Path) -> None:
    made = SearchFolder(tmp_path / "search")
    made.claim("search", SearchPlan())
    report = render(made.path)
    assert (report.front, report.rows) == ((), ())
    made.write_candidate(
        Candidate("0000", "complete", {}, 1, macs=10, params=1, val={"accuracy": 0.5})
    )
    assert render(made.path).front == ("0000",)
    assert (made.path / "pareto.png").read_bytes().startswith(b"\x89PNG")
    bare = SearchFolder(tmp_path / "compress")
    bare.claim("compress", Plan())
    assert render(bare.path).rows == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (formatting.format_count(950), "950"),
        (formatting.format_count(12_345), "12.3 k"),
        (formatting.format_count(4_560_000), "4.56 M"),
        (formatting.format_count(None), "-"),
        (formatting.format_count(999_600), "1.00 M"),
        (formatting.format_count(9_996), "10.0 k"),
        (formatting.format_size(999_999), "1.00 MB"),
        (formatting.format_time(0.9999), "1.00 ms"),
        (formatting.format_size(1500), "1.5 kB"),
        (formatting.format_size(2_345_678), "2.35 MB"),
        (formatting.format_share(0.91234), "91.23 %"),
        (formatting.format_percent(0.8), "80 %"),
        (formatting.format_percent(0.004), "0.4 %"),
        (formatting.format_percent(0.0), "0 %"),
        (formatting.format_percent(0.0099), "1.0 %"),
        (formatting.format_interval("accuracy", (0.9105, 0.96012)), "[91.05, 96.01]"),
        (formatting.format_interval("rmse", (1.5, 2.25)), "[1.5, 2.25]"),
        (formatting.format_interval("accuracy", None), ""),
        (formatting.format_time(0.0054), "5.40 us"),
        (formatting.format_time(12.345), "12.3 ms"),
        (formatting.format_time(512.3), "512 ms"),
    ],
)
def test_formats(text: str, expected: str) -> None:
    assert text == expected
