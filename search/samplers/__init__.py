"""Samplers, one file each; `search.plugins` names them.

Each takes a seed and gives an Optuna sampler for several objectives. One is made anew for each
trial (`search.study.study.ask`), in processes that come and go, so every one takes what it knows
from the study's storage.
"""

from search.plugins import SAMPLERS

__all__ = ["SAMPLERS"]
