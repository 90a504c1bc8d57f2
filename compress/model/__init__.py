"""Keras models read, opened, copied, loaded and saved: the one room that knows Keras's insides."""
