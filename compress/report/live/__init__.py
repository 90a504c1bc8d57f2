"""The page's interactive half, which needs no network: data, scripts, and plotly."""
