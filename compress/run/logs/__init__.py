"""Logging where people look: TensorBoard, MLflow, Weights & Biases, or a log of one's own."""

from compress.run.logs._base import Event, Log, Point, Source
from compress.run.logs.follower import following

__all__ = ["Event", "Log", "Point", "Source", "following"]
