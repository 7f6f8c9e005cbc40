"""The named tuples that functions with several results return."""

from graphc.tensors.results import (
    aminmax,
    cummax,
    cummin,
    histogram,
    kthvalue,
    max,
    median,
    min,
    mode,
    nanmedian,
    sort,
    topk,
)

__all__ = [
    "aminmax",
    "cummax",
    "cummin",
    "histogram",
    "kthvalue",
    "max",
    "median",
    "min",
    "mode",
    "nanmedian",
    "sort",
    "topk",
]
