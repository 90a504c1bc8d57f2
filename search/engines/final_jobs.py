"""The jobs after a search: final trainings of the front, then its models to compress."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compress.run.directory import LOG
from compress.shrinking.job import command_line
from search.engines import Job, messages
from search.engines.progress import Display, JobQueue
from search.plan import SearchPlan
from search.study.checks import Past
from search.study.directory import SearchFolder

_NOTHING = Past()


class FinalJobs(JobQueue):
    """Gives out the final trainings of the front, all seeds of the largest model first.

    Args:
        folder: The run's folder.
        plan: Section `final`.
        names: Candidates, by rising cost.
        display: Shows progress.
        teachers: Files of those who teach; none: labels alone do.
    """

    def __init__(
        self,
        folder: SearchFolder,
        plan: SearchPlan,
        names: list[str],
        display: Display,
        teachers: Sequence[Path] = (),
    ) -> None:
        done = {(record.model, record.place) for record in folder.read_finals()}
        wanted = [(name, place) for name in reversed(names) for place in range(plan.final.seeds)]
        self._pending = [item for item in wanted if item not in done]
        self._folder, self._plan = folder, plan
        self._teachers = [str(path) for path in teachers]
        super().__init__(display, len(wanted), len(wanted) - len(self._pending))

    def next_job(self) -> Job | None:
        """Returns the next training."""
        if not self._pending:
            return None
        name, place = self._pending.pop(0)
        return {
            "kind": messages.FINAL, "name": name, "place": place, "teachers": self._teachers,
        }  # fmt: skip

    def on_done(self, worker: int, job: Job, message: dict[str, Any]) -> None:
        """Counts a training, or notes why it failed."""
        if "error" in message:
            self._fail(job, message["error"])
        else:
            record, quality = message["final"], self._plan.search.objectives[0]
            shown = record["val"].get(quality)
            LOG.info(
                "final training %d of %s: %s, %.1f s",
                record["place"] + 1, record["model"],
                "with validation data" if shown is None else f"validation {quality} {shown:.4f}",
                record["seconds"],
            )  # fmt: skip
        self.end(worker)

    def _again(self, job: Job) -> None:
        self._pending.insert(0, (job["name"], job["place"]))

    def _fail(self, job: Job, reason: str) -> None:
        self.failures.append(f"{job['name']} (training {job['place'] + 1}): {reason}")
        LOG.info("final training of %s failed: %s", job["name"], reason)


class CompressJobs(JobQueue):
    """Gives out the models to compress, largest first, and collects failures."""

    def __init__(
        self,
        folder: SearchFolder,
        plan: SearchPlan,
        names: list[str],
        teachers: Sequence[Path],
        display: Display,
        past: Past = _NOTHING,
    ) -> None:
        # largest first: the last jobs to end are then short, and no worker idles for long
        self._pending = list(reversed(names))
        self._folder, self._plan, self._past = folder, plan, past
        self._teachers = [str(path) for path in teachers]
        super().__init__(display, len(names))

    def next_job(self) -> Job | None:
        """Returns the next model's job."""
        if not self._pending:
            return None
        name = self._pending.pop(0)
        file = self._folder.shipped_file(name)
        return {
            "kind": messages.COMPRESS,
            "name": name,
            "teachers": self._teachers,
            "val_learnt": self._past.val_learnt,
            "told": self._past.notes,
            "file": str(file),
            "command": command_line(
                self._plan.to_goal(self._teachers) or self._plan.compression(self._teachers),
                file,
            ),
        }

    def on_done(self, worker: int, job: Job, message: dict[str, Any]) -> None:
        """Counts a model, or notes why it failed."""
        if "error" in message:
            self._fail(job, message["error"])
        else:
            quality = self._plan.search.objectives[0]
            before, after = (message["val"][key][quality] for key in ("dense", "pruned"))
            LOG.info(
                "compressed %s: validation %s %.4f -> %.4f after %d more epochs of training%s",
                message["name"], quality, before, after, message["finetuned"],
                " (it was learnt)" if self._past.val_learnt else "",
            )  # fmt: skip
        self.end(worker)

    def _again(self, job: Job) -> None:
        self._pending.insert(0, job["name"])

    def _fail(self, job: Job, reason: str) -> None:
        self.failures.append(f"{job['name']}: {reason}")
        LOG.info("compressing %s failed: %s", job["name"], reason)
