"""Runtimes by name, one file each behind the protocol in `_base`."""

from compress.measure.runtimes._base import Runtime, Session
from compress.measure.runtimes.litert import LiteRT, LiteRTSession
from compress.registry import Registry

RUNTIMES: Registry[Runtime] = Registry("runtime")
RUNTIMES.add("litert", LiteRT())

__all__ = ["RUNTIMES", "LiteRT", "LiteRTSession", "Runtime", "Session"]
