"""What makes the page alive without a network: its data, its scripts, and plotly."""
