"""Files are chosen by validation data; test data say how good the chosen ones are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from compress.core.atomic_files import read_json, write_json
from compress.core.statistics import compute_mean_interval, compute_wilson_interval
from compress.data.tasks import create_task
from compress.plan import Plan
from compress.report.file_selection import select_files
from compress.run.compressed_model import Artifact, CompressedModel, write_example_values
from search.report import load_report, render
from search.study.directory import SearchFolder
from tests.compress.report.test_report import latency

# id, validation, test, gzipped bytes, time against the baseline
FILES = [
    ("m.float32", 0.960, 0.940, 9000, 1.0),
    # best on the test part by 5 points, and by nothing that may choose
    ("m.int8", 0.940, 0.990, 2000, 4.0),
    ("m-p80.float32", 0.955, 0.930, 4000, 1.1),
    ("m-p80.int8", 0.951, 0.920, 5000, 3.0),
]


def run_with(path: Path, files: list[tuple[str, float | None, float, int, float]]) -> SearchFolder:
    folder = SearchFolder(path)
    folder.claim("compress", Plan())
    write_json(
        folder.data,
        {"source": "x", "task": "multiclass", "input_shape": [2], "class_names": ["a", "b"],
         "counts": {"train": [5, 5], "val": [100, 100], "test": [150, 210]}},
    )  # fmt: skip
    made = []
    for name, val, test, gzipped, _ in files:
        stem, _, file_format = name.partition(".")
        more: dict[str, Any] = {} if val is None else {"val": {"accuracy": val}, "tested": 360}
        variant = {"m": "dense", "m-tuned": "tuned"}.get(stem, "pruned")
        made.append(
            Artifact(
                name, "m", variant, file_format, f"exports/{name}",
                "m.float32", 100, 1000, 1000, 0.0, (), 10_000, gzipped, {"accuracy": test}, 0.0,
                1.0, 50, **more,
            )
        )  # fmt: skip
    record = CompressedModel(
        "m", "", {"dense": {"accuracy": 0.95}, "pruned": {"accuracy": 0.97}},
        {"pruned": [], "kept": [], "sparsity": 0.0}, 1, 2, "paretune compress m", 1.0, "CPU", (),
        tuple(item.to_json() for item in made), compressed="m-p80",
    )  # fmt: skip
    folder.write_compressed(record)
    write_json(folder.latency, {name: latency(ratio).to_json() for name, *_, ratio in files})
    return folder


def test_validation_chooses_and_test_judges(tmp_path: Path) -> None:
    folder = run_with(tmp_path / "run", FILES)
    found = select_files(load_report(folder.path))
    assert found.reason == ""
    # by test accuracy all three would be m.int8; it is 2 points below the best in validation
    # and the faster m-p80.int8 is 0.9 points below, more than half a point
    assert {item.role: item.row.artifact.id for item in found.files} == {
        "best": "m.float32", "shipped": "m-p80.float32",
    }  # fmt: skip
    report = render(folder.path)
    content = json.loads((folder.path / "report.json").read_text("utf-8"))["chosen"]
    # 0.94 of 360 in Wilson's closed form, to four digits by hand:
    # centre (0.94 + 3.8415 / 720) / 1.010671 = 0.93536, half 0.02484
    assert content["best"] == {
        "file": "m.float32", "val": 0.96, "test": 0.94, "examples": 360,
        "interval": [pytest.approx(0.9105, abs=1e-4), pytest.approx(0.9602, abs=1e-4)],
    }  # fmt: skip
    assert content["quality"] == "accuracy"
    assert content["shipped"]["file"] == "m-p80.float32"
    # nothing is known of single examples: no interval of the change
    assert content["verdict"]["before"] == 0.94
    assert content["verdict"]["after"] == 0.93
    assert content["verdict"]["low"] is None
    change = "Test accuracy: 94.00 % -&gt; 93.00 %, -1.00 pp"
    assert change in (folder.path / "report.html").read_text("utf-8")
    page = (folder.path / "report.html").read_text("utf-8")
    tiles = page[page.index('class="tiles"') : page.index("<h2>")]
    # of the shipped file: 0.93 of 360 in Wilson's closed form is [0.8989, 0.9521]
    assert "93.00\u00a0%<small> [89.89, 95.21]</small>" in tiles
    assert "test accuracy of m-p80.float32, 94.00 % before, 360 examples" in tiles
    assert tiles.count('class="tile"') == 3
    assert "m.int8" not in tiles
    text = str(report)
    assert text.startswith("Test accuracy: 94.00 % -> 93.00 %, -1.00 pp\n")
    assert "> m-p80.float32" in text
    assert "best on validation data: m.float32 (96.00 %)" in text


def test_what_examples_tell_apart_is_not_shipped_for_its_speed(tmp_path: Path) -> None:
    # the fast file is wrong on five examples more of 1,000, the best one wrong on none of these
    files = [("m.float32", 0.960, 0.94, 9000, 1.0), ("m.int8", 0.955, 0.94, 2000, 4.0)]
    folder = run_with(tmp_path / "run", files)
    best = np.where(np.arange(1000) < 960, 1.0, 0.0)
    same = np.where((np.arange(1000) >= 35) & (np.arange(1000) < 990), 1.0, 0.0)  # 35 for 30
    for name, values in (("m.float32", best), ("m.int8", same)):
        write_example_values(folder, name, "val", values)
    assert select_files(load_report(folder.path)).to_ship.row.artifact.id == "m.int8"  # type: ignore[union-attr]
    lost = np.where((np.arange(1000) >= 5) & (np.arange(1000) < 960), 1.0, 0.0)
    # 5 lost and none won: z = 5 / sqrt(5 + 2) = 1.9 is a tie; 9 lost and none won is not
    write_example_values(folder, "m.int8", "val", lost)
    assert select_files(load_report(folder.path)).to_ship.row.artifact.id == "m.int8"  # type: ignore[union-attr]
    write_example_values(folder, "m.int8", "val", np.where(np.arange(1000) < 9, 0.0, best))
    assert select_files(load_report(folder.path)).to_ship.row.artifact.id == "m.float32"  # type: ignore[union-attr]


def test_the_verdict_has_a_paired_interval(tmp_path: Path) -> None:
    folder = run_with(tmp_path / "run", FILES)
    before = np.where(np.arange(360) < 338, 1.0, 0.0)
    after = np.where(np.arange(360) < 335, 1.0, 0.0)
    write_example_values(folder, "m.float32", "test", before)
    write_example_values(folder, "m-p80.float32", "test", after)
    verdict = select_files(load_report(folder.path)).verdict
    assert verdict is not None
    # 3 lost, none won of 360: (1 - 4) / 362 +- 1.96 sqrt((5 - 9 / 362) / 362 / 362)
    middle, half = -3 / 362, 1.959964 * np.sqrt((5 - 9 / 362) / 362 / 362)
    assert (verdict.low, verdict.high) == pytest.approx((middle - half, middle + half))


def test_equal_validation_goes_to_the_faster_file(tmp_path: Path) -> None:
    same = [(name, 0.9, test, gzipped, ratio) for name, _, test, gzipped, ratio in FILES]
    found = select_files(load_report(run_with(tmp_path / "run", same).path))
    assert found.to_ship is not None
    assert found.to_ship.row.artifact.id == "m.int8"  # four times as fast


def test_records_of_older_versions_choose_by_the_keras_models(tmp_path: Path) -> None:
    folder = run_with(tmp_path / "run", [(*item[:1], None, *item[2:]) for item in FILES])
    found = select_files(load_report(folder.path))
    # validation: dense 0.95, pruned 0.97, and of files in int8 nothing is known
    assert {item.role: item.row.artifact.id for item in found.files} == {
        "best": "m-p80.float32", "shipped": "m-p80.float32",
    }  # fmt: skip
    assert "Keras models" in found.source
    render(folder.path)
    # n comes from data.json
    assert "360 examples" in (folder.path / "report.html").read_text("utf-8")


def test_of_int8_alone_older_records_know_nothing(tmp_path: Path) -> None:
    files = [(item[0], None, *item[2:]) for item in FILES if item[0].endswith("int8")]
    folder = run_with(tmp_path / "run", files)
    path = folder.compressed / "m.json"
    path.write_text(path.read_text().replace('"m.float32"', '"m.int8"'))
    found = select_files(load_report(folder.path))
    assert (found.files, "not on record" in found.reason) == ((), True)


@pytest.mark.parametrize(("right", "of"), [(0, 10), (3, 7), (350, 360), (360, 360), (9123, 10_000)])
def test_wilson_against_scipy(right: int, of: int) -> None:
    expected = binomtest(right, of).proportion_ci(0.95, method="wilson")
    assert compute_wilson_interval(right / of, of) == pytest.approx(
        (expected.low, expected.high), abs=1e-12
    )


@pytest.mark.slow
def test_jackknife_covers_what_other_samples_give() -> None:
    task = create_task("regression", 1)
    random = np.random.default_rng(0)

    def sample(count: int) -> tuple[Any, Any]:
        y = random.normal(size=(count, 1)).astype(np.float32)
        return y, (y + random.normal(scale=0.5, size=y.shape)).astype(np.float32)

    # R^2 of this model is 1 - 0.25 / 1
    hits = 0
    for _ in range(60):
        y, scores = sample(200)
        found = compute_mean_interval(task.example_values(y, scores))
        assert found is not None
        hits += found[0] <= 0.75 <= found[1]
    # 95 % of 60, less three standard errors
    assert hits >= 52
    assert compute_mean_interval(np.zeros(9)) is None


def test_a_file_that_disagrees_with_its_model_is_not_chosen(tmp_path: Path) -> None:
    folder = run_with(tmp_path / "run", [("m.float32", 0.9, 0.9, 9000, 1.0),
                                         ("m.int8", 0.9, 0.9, 2000, 4.0)])  # fmt: skip
    assert select_files(load_report(folder.path)).to_ship.row.artifact.id == "m.int8"  # type: ignore[union-attr]
    path = folder.compressed / "m.json"
    content = read_json(path)
    content["artifacts"][1] |= {"agreement": 0.6, "checked": 200}
    write_json(path, content)
    assert select_files(load_report(folder.path)).to_ship.row.artifact.id == "m.float32"  # type: ignore[union-attr]
