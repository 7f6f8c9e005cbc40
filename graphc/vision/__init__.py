"""Images: data sets, transformations and networks."""

from graphc.vision import datasets, models, transforms

__all__ = ["datasets", "models", "transforms"]
