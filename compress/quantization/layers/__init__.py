"""Keras layers that a model computes with as its file of integers will."""
