"""What makes the page alive without a network: its data, its scripts, and plotly."""

from compress.report.live.charts import Chart
from compress.report.live.page import Live, live
from compress.report.live.points import Axis, Points

__all__ = ["Axis", "Chart", "Live", "Points", "live"]
