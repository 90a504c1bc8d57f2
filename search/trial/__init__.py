"""One trial: costs, training, stopping, its record."""
