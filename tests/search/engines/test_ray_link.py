"""The run's end of the Ray engine, with actors that are played: what arrives, in which order."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compress.core.errors import InputError
from search.engines import KILLED, LOST, messages
from search.engines.pool import Link, Tell
from search.engines.ray.engine import RayPool
from search.engines.ray.host import ENDED, REFUSED
from search.engines.ray.link import RayLink
from tests.search.engines.orders import order
from tests.search.engines.test_pool import READY, Jobs, Worker

DONE = {"kind": messages.DONE, "memory": 1, "renewed": False}
OK = {"node": "n1", "problem": ""}


class Calls:
    """An actor whose calls are remembered; each `remote` returns the method's name."""

    def __init__(self) -> None:
        self.made: list[tuple[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        def remote(*words: Any) -> str:
            self.made.append((name, words))
            return name

        return SimpleNamespace(remote=remote)

    def names(self) -> list[str]:
        return [name for name, _ in self.made]


class Played:
    """In place of `Watch`: answers come when the test gives them."""

    def __init__(self) -> None:
        self.waiting: dict[str, tuple[Callable[[Any], None], Callable[[Exception], None]]] = {}

    def add(self, reference: str, answered: Any, failed: Any, *, last: bool = False) -> None:
        self.waiting[reference] = answered, failed

    def aside(self, work: Callable[[], None]) -> None:
        work()

    def answer(self, reference: str, answer: Any) -> None:
        self.waiting.pop(reference)[0](answer)

    def fail(self, reference: str, error: Exception) -> None:
        self.waiting.pop(reference)[1](error)


class Scene:
    """A link, its actor, and what the pool hears."""

    def __init__(self, log: Path) -> None:
        self.actor, self.watch = Calls(), Played()
        self.heard: list[Any] = []
        self.received: list[list[str]] = []
        self.broken: Exception | None = None
        watch: Any = self.watch
        self.link = RayLink(
            self.actor, watch, self.heard.append, {"SECRET": "x"}, self._receive, log
        )

    def _receive(self, names: list[str]) -> None:
        # what the pool has heard before: files come first
        self.received.append([*names, str(len(self.heard))])
        if self.broken is not None:
            raise self.broken


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Ray, of which `kill` alone is called."""
    found: list[Any] = []
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(kill=found.append))
    return found


@pytest.fixture
def scene(tmp_path: Path, killed: list[Any]) -> Scene:
    return Scene(tmp_path / "workers-0.log")


def test_messages_arrive_in_order_and_files_before_theirs(scene: Scene) -> None:
    assert scene.actor.made == [("begin", ({"SECRET": "x"},))]
    scene.watch.answer("begin", OK)
    scene.watch.answer("poll", [READY])
    files = ["candidates/0000.json"]
    scene.watch.answer("poll", [{**DONE, "files": files}, READY])
    assert scene.heard == [READY, {**DONE, "files": files}, READY]
    assert scene.received == [[*files, "1"]]
    assert "poll" in scene.watch.waiting


def test_the_end_of_a_worker(scene: Scene, killed: list[Any], tmp_path: Path) -> None:
    scene.watch.answer("begin", OK)
    scene.watch.answer("poll", [{"kind": ENDED, "how": "exit code 3", "printed": "Traceback"}])
    assert scene.heard == [None]
    assert scene.link.how() == "exit code 3"
    assert (tmp_path / "workers-0.log").read_text() == "Traceback"
    assert scene.actor.names().count("end") == 1
    scene.watch.answer("end", None)
    assert killed == [scene.actor]


def test_nothing_of_a_worker_that_was_ended_arrives(scene: Scene, tmp_path: Path) -> None:
    scene.watch.answer("begin", OK)
    scene.link.end()
    said = [{**DONE, "files": ["candidates/0000.json"]},
            {"kind": ENDED, "how": "exit code 0", "printed": "words"}]  # fmt: skip
    scene.watch.answer("poll", said)
    assert scene.heard == scene.received == []
    assert not (tmp_path / "workers-0.log").exists()
    assert scene.actor.names().count("end") == 1


def test_one_that_waits_for_room_is_not_asked_to_end(scene: Scene, killed: list[Any]) -> None:
    scene.link.end()
    assert killed == [scene.actor]
    assert "end" not in scene.actor.names()


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("The actor died: its node has died", LOST),
        ("Task was killed due to the node running low on memory", KILLED),
    ],
)
def test_how_actors_die(text: str, how: str, scene: Scene, killed: list[Any]) -> None:
    scene.watch.answer("begin", OK)
    scene.watch.fail("poll", type("ActorDiedError", (Exception,), {})(text))
    assert scene.heard == [None]
    assert scene.link.how() == how
    assert killed == [scene.actor], "it may still be there, and hold its place"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "The machine failed"),
        (ValueError("broken"), r"could not be fetched \(ValueError: broken\)"),
    ],
)
def test_files_that_cannot_be_fetched_end_the_run(
    error: Exception, said: str, scene: Scene
) -> None:
    scene.broken = error
    scene.watch.answer("begin", OK)
    scene.watch.answer("poll", [{**DONE, "files": ["candidates/0000.json"]}])
    (message,) = scene.heard
    assert message["kind"] == messages.FATAL
    assert re.search(said, message["reason"])
    assert "poll" not in scene.watch.waiting


def test_a_node_without_paretune(scene: Scene) -> None:
    died = type("ActorDiedError", (Exception,), {})
    text = "raised in its creation task: ModuleNotFoundError: No module named 'search.engines'"
    scene.watch.fail("begin", died(text))
    (message,) = scene.heard
    assert message["kind"] == REFUSED
    assert "paretune is not installed there" in message["reason"]


class Nodes(RayPool):
    """A pool whose nodes answer at once; `problems` says what is wrong with each, in turn."""

    def __init__(self, folder: Path, count: int, problems: list[str]) -> None:
        super().__init__(order(folder, count), lambda: None)
        self.problems = problems
        self.made = 0

    def _open(self, index: int, tell: Tell) -> Link:
        problem = self.problems.pop(0) if self.problems else ""
        self.made += 1
        if problem:
            tell({"kind": REFUSED, "node": "n2", "reason": problem})
        return Worker(tell, mortal=False, ready=not problem)


def test_a_bad_node_ends_the_run_before_anything_has_worked(tmp_path: Path) -> None:
    pool, jobs = Nodes(tmp_path, 1, ["it has keras 3.0.0 in place of 3.15.1"]), Jobs(1)
    with pytest.raises(InputError, match=r"Node 'n2' cannot work .*: it has keras 3\.0\.0"):
        pool.run(jobs)
    assert jobs.done == []


def test_a_bad_node_that_joins_later_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pool, jobs = Nodes(tmp_path, 2, ["", "no such folder"]), Jobs(6)
    pool.run(jobs)
    assert sorted(jobs.done) == list(range(6))
    assert caplog.text.count("Node 'n2' cannot work for this run: no such folder") == 1
    assert pool.made == 2, "its slot waits before it asks again"
