"""Samples of PyTorch's public operators, one file a family; `OPERATORS` holds them all."""

from tests.differential.samples.activations import ACTIVATIONS
from tests.differential.samples.alignment import ALIGNMENT
from tests.differential.samples.attention import ATTENTION
from tests.differential.samples.base import Bad, Op, Sample
from tests.differential.samples.creation import CREATION, RANDOM
from tests.differential.samples.distances import DISTANCES
from tests.differential.samples.dropping import DROPPING
from tests.differential.samples.indexing import INDEXING
from tests.differential.samples.joining import JOINING
from tests.differential.samples.linalg import LINALG
from tests.differential.samples.lookup import LOOKUP
from tests.differential.samples.losses import LOSSES
from tests.differential.samples.native import NATIVE
from tests.differential.samples.normalisation import NORMALISATION
from tests.differential.samples.pointwise import POINTWISE
from tests.differential.samples.pointwise_unary import POINTWISE_UNARY
from tests.differential.samples.products import PRODUCTS
from tests.differential.samples.reduction import REDUCTION
from tests.differential.samples.reflections import REFLECTIONS
from tests.differential.samples.scan import SCAN
from tests.differential.samples.slopes import SLOPES
from tests.differential.samples.sorting import SORTING
from tests.differential.samples.spatial import SPATIAL
from tests.differential.samples.special import SPECIAL
from tests.differential.samples.spectral import SPECTRAL
from tests.differential.samples.statistics import STATISTICS
from tests.differential.samples.view_copies import VIEW_COPIES
from tests.differential.samples.views import VIEWS

OPERATORS: tuple[Op, ...] = (
    *ACTIVATIONS,
    *ALIGNMENT,
    *ATTENTION,
    *CREATION,
    *DISTANCES,
    *DROPPING,
    *INDEXING,
    *JOINING,
    *LINALG,
    *LOOKUP,
    *LOSSES,
    *NATIVE,
    *NORMALISATION,
    *POINTWISE,
    *POINTWISE_UNARY,
    *PRODUCTS,
    *RANDOM,
    *REDUCTION,
    *REFLECTIONS,
    *SCAN,
    *SLOPES,
    *SORTING,
    *SPATIAL,
    *SPECIAL,
    *SPECTRAL,
    *STATISTICS,
    *VIEW_COPIES,
    *VIEWS,
)

__all__ = ["OPERATORS", "Bad", "Op", "Sample"]
