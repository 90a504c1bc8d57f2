"""paretune's searching half: find efficient architectures, then compress the front."""

from search.pipeline import run, run_search
from search.plan import SearchOptions, SearchPlan

__all__ = ["SearchOptions", "SearchPlan", "run", "run_search"]
