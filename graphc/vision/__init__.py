"""Images: data sets, transformations, networks and pictures."""

from graphc.vision import datasets, models, transforms, utils

__all__ = ["datasets", "models", "transforms", "utils"]
