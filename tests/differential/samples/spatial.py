"""Samples of what works on images and their like."""

from tests.differential.samples.base import Op
from tests.differential.samples.convolution import CONVOLUTION
from tests.differential.samples.pooling import POOLING
from tests.differential.samples.resampling import RESAMPLING

SPATIAL: tuple[Op, ...] = (*CONVOLUTION, *POOLING, *RESAMPLING)
