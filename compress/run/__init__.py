"""A run's folder, its records, and the runs that models come from."""
