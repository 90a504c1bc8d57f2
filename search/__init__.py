"""The architecture search of paretune: find efficient models, then compress the Pareto front."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.core.registry import build_lazy_getattr

if TYPE_CHECKING:
    from search.pipeline import run, run_search
    from search.plan import (
        FinalOptions,
        SearchData,
        SearchOptions,
        SearchPlan,
    )
    from search.workers import Workers

_TARGETS = {
    "FinalOptions": "search.plan:FinalOptions",
    "SearchData": "search.plan:SearchData",
    "SearchOptions": "search.plan:SearchOptions",
    "SearchPlan": "search.plan:SearchPlan",
    "Workers": "search.workers:Workers",
    "run": "search.pipeline:run",
    "run_search": "search.pipeline:run_search",
}

__all__ = [
    "FinalOptions",
    "SearchData",
    "SearchOptions",
    "SearchPlan",
    "Workers",
    "run",
    "run_search",
]

if not TYPE_CHECKING:  # a type checker sees the imports above, and no other name
    __getattr__ = build_lazy_getattr(__name__, _TARGETS)


def __dir__() -> list[str]:
    return __all__
