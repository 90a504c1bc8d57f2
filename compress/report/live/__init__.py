"""What makes the page alive without a network: its data, its scripts, and plotly."""

from compress.report.live.charts import Axis, Chart, Points
from compress.report.live.page import Live, live

__all__ = ["Axis", "Chart", "Live", "Points", "live"]
