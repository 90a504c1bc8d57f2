"""Data sets: `load_data` reads and splits a source; each kind of source has its own module."""

from __future__ import annotations

from compress.data.dataset import Dataset, UnlabelledDataset
from compress.data.parts import RawData, Split
from compress.data.preprocessing import Preprocessing
from compress.data.sources import check_source, load_data
from compress.data.splitting import sample_inputs, sample_stratified
from compress.plan import DataOptions
from compress.plugins import SOURCES

__all__ = [
    "DataOptions",
    "Dataset",
    "Preprocessing",
    "RawData",
    "SOURCES",
    "Split",
    "UnlabelledDataset",
    "check_source",
    "sample_stratified",
    "sample_inputs",
    "load_data",
]
