"""What every worker has: its folder, its plan, its data, loaded once."""

from __future__ import annotations

import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from compress.core.credentials import hidden
from compress.core.faults import SPACE, NoAnswer, explain_fault, fault_of
from search.engines import messages

if TYPE_CHECKING:
    from compress.core.device import Device
    from compress.data import Dataset
    from compress.plan import Plan
    from compress.shrinking.case import LoadedTeachers
    from search.study.directory import SearchFolder


class Worker(ABC):
    """A worker with its plan and its data; what it does is its subclass's.

    Args:
        folder: The run's folder; the plan is read from it.
        device: "auto", "cpu" or "gpu".
        threads: CPU threads.
        sharers: Workers on this worker's GPU, itself included.
        out: Where messages go.
        shared: Where the run's data lie on this machine; default: in the run's folder.
    """

    plan: Plan
    _teachers: tuple[list[str], LoadedTeachers] | None = None

    def __init__(
        self,
        folder: SearchFolder,
        device: str,
        threads: int,
        sharers: int,
        out: TextIO,
        shared: Path | None = None,
    ) -> None:
        from compress.core.atomic_files import read_json
        from compress.core.device import quiet_tensorflow, setup
        from compress.data.dataset import open_shared

        self.folder, self._out = folder, out
        self.plan = self._plan(folder.read_plan_record()["plan"])
        self.device: Device = setup(device, threads, sharers)
        quiet_tensorflow()
        stored = read_json(folder.data)
        given = open_shared(shared or folder.shared, stored["fingerprint"])
        self.data: Dataset = self._load(stored) if given is None else given

    def _load(self, stored: dict[str, Any]) -> Dataset:
        """Loads the data from their source, with the run's scaling."""
        from compress.core.errors import InputError
        from compress.data import Preprocessing, load_data
        from compress.train.compiled import judged_by

        scaling = Preprocessing.from_json(stored["preprocess"])
        data = load_data(self.plan.data, seed=self.plan.seed, preprocess=scaling)
        data = judged_by(data, self.plan.data.metric)
        if data.fingerprint() != stored["fingerprint"]:
            raise InputError(
                f"'{self.plan.data.source}' must give the same data each time it is loaded. "
                "Received: other examples than a moment ago. Seed what is random in it."
            )
        return data

    def progress(self, text: str, share: float) -> None:
        """Reports how far the current job is."""
        messages.send(self._out, messages.PROGRESS, text=text, share=share)

    @abstractmethod
    def _plan(self, nested: Mapping[str, Any]) -> Plan:
        """Returns the plan that stands in the folder."""

    @abstractmethod
    def do(self, job: dict[str, Any]) -> dict[str, Any]:
        """Does one job and returns what the parent wants to know of it."""

    def taught_by(self, paths: list[str]) -> LoadedTeachers:
        """Returns the teachers; those of the last job, which are nearly always the same."""
        from compress.shrinking.case import seeded_teachers

        if self._teachers is None or self._teachers[0] != paths:
            files = [self.folder.brought(Path(path)) for path in paths]
            self._teachers = paths, seeded_teachers(files, self.data, self.plan)
        return self._teachers[1]


def failed(error: Exception) -> str:
    """Returns why a job after the search failed.

    Raises:
        RunFailed: Every other would, too: the machine lacks space, a store does not answer.
    """
    sys.stderr.write(hidden(traceback.format_exc()))
    if isinstance(error, NoAnswer):
        raise error
    fault = fault_of(error)
    if fault is not None and fault.kind == SPACE:
        raise explain_fault(fault) from error
    return short(error)


def short(error: Exception) -> str:
    """Returns an error's first line, with its kind."""
    first = (str(error).strip() or repr(error)).splitlines()[0]
    return hidden(f"{type(error).__name__}: {first}")
