"""A run's folder, the records in it, and which run a model comes from."""
