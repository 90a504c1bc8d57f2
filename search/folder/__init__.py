"""The folder of a run that searches, and its records: what it adds to those of a compression."""
