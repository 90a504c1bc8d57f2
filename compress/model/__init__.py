"""Keras models: reading, tracing, copying, loading and saving."""
