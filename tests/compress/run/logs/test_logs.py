"""Logs: the contract that each keeps, and what their own readers read back."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from compress.core.errors import InputError, MissingDependency
from compress.plan import Plan
from compress.plan.nesting import from_flat
from compress.plugins import LOGS
from compress.run.directory import RunFolder
from compress.run.logs import EPOCHS_FILE, EpochSource, Event, FileSource, append_epoch, following
from search.study.directory import FinalTraining, SearchFolder
from search.study.events import create_log_sources
from tests.compress.report.test_report import folder  # noqa: F401
from tests.contracts.log import CURVE, Figures, LogContract, Once
from tests.patience import wait_for


def read_tensorboard(folder: Path, item: str) -> Figures:  # noqa: F811
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    found = EventAccumulator(str(folder / "tensorboard" / item))
    found.Reload()
    return {
        name: [
            (event.step, float(make_ndarray(event.tensor_proto))) for event in found.Tensors(name)
        ]
        for name in found.Tags()["tensors"]
        if not name.startswith("_hparams_")
    }


def read_mlflow(folder: Path, item: str) -> Figures:  # noqa: F811
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("paretune")
    (run,) = [
        run for run in client.search_runs([experiment.experiment_id]) if run.info.run_name == item
    ]
    return {
        name: sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, name))
        for name in run.data.metrics
    }


class TestTensorBoard(LogContract):
    kind = "tensorboard"

    def read(self, folder: Path, item: str) -> Figures:  # noqa: F811
        return read_tensorboard(folder, item)


class TestMlflow(LogContract):
    kind = "mlflow"

    def read(self, folder: Path, item: str) -> Figures:  # noqa: F811
        return read_mlflow(folder, item)


QUIET = pytest.mark.filterwarnings("ignore")
"""Libraries that log warn of this and that."""


@QUIET
def test_mlflow_nests_items_and_keeps_parameters_and_files(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    with following(["mlflow"], run, {"seed": 3}, [Once(CURVE)]):
        (run.path / "report.html").write_text("<p>")
    client = MlflowClient(f"sqlite:///{run.path / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("paretune")
    runs = {item.info.run_name: item for item in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"run", "0001"}
    assert runs["0001"].data.tags["mlflow.parentRunId"] == runs["run"].info.run_id
    assert runs["0001"].data.params["width"] == "8"
    assert runs["run"].data.params == {"seed": "3"}
    assert runs["run"].info.status == "FINISHED"
    stored = Path(runs["run"].info.artifact_uri.removeprefix("file://"))
    assert (stored / "report.html").read_text() == "<p>"


@QUIET
def test_tensorboard_knows_what_a_candidate_was_made_of(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    with following(["tensorboard"], run, {}, [Once(CURVE)]):
        pass
    found = EventAccumulator(str(run.path / "tensorboard" / "0001"))
    found.Reload()
    content = found.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    made = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert made["width"].number_value == 8
    assert made["kind"].string_value == "deep"
    assert made["flag"].bool_value is True


class _Breaking:
    def __init__(self, folder: Path, name: str, plan: Any) -> None:  # noqa: F811
        self.taken: list[str] = []

    def take(self, event: Event) -> None:
        raise ConnectionError("nobody answers")

    def end(self, files: Sequence[Path], *, finished: bool) -> None:
        raise AssertionError("it was left out")


@pytest.fixture
def plugged() -> Iterator[None]:
    LOGS.add("breaking", _Breaking)
    LOGS.add("listing", _Listing)
    _Listing.made.clear()
    yield
    LOGS.remove("breaking")
    LOGS.remove("listing")


@pytest.mark.usefixtures("plugged")
def test_a_log_that_breaks_does_not_end_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    with caplog.at_level(logging.WARNING), following(["breaking"], run, {}, [Once(CURVE, CURVE)]):
        pass
    told = [line for line in caplog.messages if "takes nothing more" in line]
    assert told == ["log 'breaking' takes nothing more: ConnectionError: nobody answers"]
    assert not (run.path / ".logged").exists()


class _Listing:
    made: list[Event] = []  # noqa: RUF012 - of this test's

    def __init__(self, folder: Path, name: str, plan: Any) -> None:  # noqa: F811
        pass

    def take(self, event: Event) -> None:
        self.made.append(event)

    def end(self, files: Sequence[Path], *, finished: bool) -> None:
        pass


@pytest.mark.usefixtures("plugged")
def test_epochs_are_told_while_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compress.run.logs.POLL_SECONDS", 0.01)
    run, made = RunFolder(tmp_path / "run"), _Listing.made
    run.path.mkdir()
    record = {"epoch": 1, "loss": 0.5, "val_loss": 0.6, "val": {"accuracy": 0.7}, "seconds": 1.0}
    with following(["listing"], run, {}, [EpochSource(run)]):
        append_epoch(run.path, "m", "fine-tuning", record)
        wait_for(lambda: len(made) == 1)
        append_epoch(run.path, "m", "fine-tuning", {**record, "epoch": 2})
        wait_for(lambda: len(made) == 2)
        with open(run.path / EPOCHS_FILE, "a") as stream:
            stream.write('{"model": "torn')
    assert [event.points[0].step for event in made] == [1, 2]
    assert made[0].points[0].values == {
        "training/loss": 0.5, "validation/loss": 0.6, "validation/accuracy": 0.7,
    }  # fmt: skip


@pytest.mark.usefixtures("plugged")
def test_an_interrupted_run_tells_no_files_and_goes_on(folder: SearchFolder) -> None:  # noqa: F811
    made = _Listing.made
    with (
        pytest.raises(KeyboardInterrupt),
        following(["listing"], folder, {}, [FileSource(folder), *create_log_sources(folder)]),
    ):
        raise KeyboardInterrupt
    assert {event.kind for event in made} == {"candidate"}
    with following(["listing"], folder, {}, [FileSource(folder), *create_log_sources(folder)]):
        pass
    kinds = [event.kind for event in made]
    assert kinds.count("candidate") == len(folder.read_candidates())
    assert kinds.count("file") == len(next(iter(folder.read_compressed())).artifacts)


@pytest.mark.usefixtures("plugged")
def test_a_source_that_breaks_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Breaking:
        def new(self, *, last: bool) -> Iterator[Event]:
            raise KeyError("val")

    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    with (
        caplog.at_level(logging.WARNING),
        following(["listing"], run, {}, [Breaking(), Once(CURVE)]),
    ):
        pass
    assert [line for line in caplog.messages if "logs miss" in line] == [
        "logs miss what follows: KeyError: 'val'"
    ]
    assert _Listing.made == [CURVE]


def test_what_a_search_and_a_compression_tell(folder: SearchFolder) -> None:  # noqa: F811
    folder.write_final(FinalTraining("0001", 0, 1, 5, 4, {"accuracy": 0.8}, {"accuracy": 0.7}, 1.0))
    (candidates, finals), files = create_log_sources(folder), FileSource(folder)
    events = [*candidates.new(last=False), *finals.new(last=False)]
    known = {item.id: item for item in folder.read_candidates()}
    assert [event.item for event in events] == [*known, "0001-final0"]
    for event in events[:-1]:
        item = known[event.item]
        if item.macs is not None:
            assert event.points[-1].values["best/cost/macs"] == item.macs
        assert event.params["state"] == item.state
    assert events[-1].points[0].values == {"validation/accuracy": 0.8, "test/accuracy": 0.7}
    assert list(candidates.new(last=True)) == []
    assert list(files.new(last=False)) == []
    told = {event.item: event.points[0].values for event in files.new(last=True)}
    timed = json.loads(folder.latency.read_text())
    (record,) = folder.read_compressed()
    assert set(told) == {item.id for item in record.artifacts}
    for item in record.artifacts:
        assert told[item.id]["test/accuracy"] == item.test["accuracy"]
        assert told[item.id]["cost/gzip_bytes"] == item.gzip_bytes
        if item.id in timed:
            assert told[item.id]["cost/latency_ms"] == timed[item.id]["median_ms"]


def test_names_are_checked_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        InputError, match="Unknown log .tensorbord.. Did you mean 'tensorboard'. Choices: mlflow"
    ):
        from_flat(Plan, {"log": "tensorbord"})
    assert from_flat(Plan, {"log": "tensorboard,mlflow"}).log == ("tensorboard", "mlflow")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"pip install 'paretune\[mlflow\]'"):
        LOGS.require_installed("mlflow")
