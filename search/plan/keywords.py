"""Options of a search as keywords of `run` and `run_search`; see `compress.plan.keywords`."""

from __future__ import annotations

from compress.plan.keywords import FUNCTIONS, Keywords
from search.plan import SearchPlan

_SOURCE = frozenset({"data.source"})

RUN = Keywords("run", SearchPlan, without=_SOURCE)
RUN_SEARCH = Keywords("run_search", SearchPlan, without=_SOURCE)

FUNCTIONS.extend((RUN, RUN_SEARCH))
