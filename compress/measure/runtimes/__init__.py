"""Runtimes by name, one file each behind the protocol in `_base`."""

from compress.measure.runtimes._base import Runtime, Session
from compress.measure.runtimes.litert import LiteRT, LiteRTSession
from compress.measure.runtimes.mnn import MNN, MNNSession
from compress.registry import Registry

RUNTIMES: Registry[Runtime] = Registry("runtime")
RUNTIMES.add("litert", LiteRT())
RUNTIMES.add("mnn", MNN())

__all__ = ["MNN", "RUNTIMES", "LiteRT", "LiteRTSession", "MNNSession", "Runtime", "Session"]
