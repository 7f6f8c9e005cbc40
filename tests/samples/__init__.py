"""Sample inputs of every operator, in data that tests of any kind loop over: `SAMPLES[op].make(rng)` and so on."""

from tests.samples.alignment import ALIGNMENT
from tests.samples.base import BadSample, OpSamples, Sample, twice_differentiable, type_of
from tests.samples.composites import COMPOSITES
from tests.samples.elementwise import ELEMENTWISE
from tests.samples.host import HOST
from tests.samples.indexing import INDEXING
from tests.samples.linear import LINEAR
from tests.samples.scans import SCANS
from tests.samples.sorting import SORTING
from tests.samples.structured import STRUCTURED

SAMPLES: dict[str, OpSamples] = {
    **ELEMENTWISE,
    **COMPOSITES,
    **STRUCTURED,
    **INDEXING,
    **HOST,
    **SCANS,
    **SORTING,
    **ALIGNMENT,
    **LINEAR,
}

__all__ = ["SAMPLES", "BadSample", "OpSamples", "Sample", "twice_differentiable", "type_of"]
