"""Interactive part of the report page: data, scripts and plotly, without network access."""
