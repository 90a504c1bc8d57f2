"""Data sets: `load_data` reads and splits them; each kind of source has a module."""

from __future__ import annotations

from compress.data.dataset import Dataset, Unlabelled
from compress.data.parts import RawData, Split
from compress.data.preprocessing import Preprocessing
from compress.data.sources import check_source, load_data
from compress.data.splitting import draw_stratified, drawn_inputs
from compress.plan import DataOptions
from compress.plugins import SOURCES

__all__ = [
    "DataOptions",
    "Dataset",
    "Preprocessing",
    "RawData",
    "SOURCES",
    "Split",
    "Unlabelled",
    "check_source",
    "draw_stratified",
    "drawn_inputs",
    "load_data",
]
