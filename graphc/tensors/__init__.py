"""Tensors: the class, and the functions that record operations."""
