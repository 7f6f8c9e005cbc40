"""The operations that tensors have as methods, one file a family."""

from graphc.tensors.methods.functional import FunctionalMethods
from graphc.tensors.methods.indexing import IndexingMethods
from graphc.tensors.methods.linalg import LinalgMethods
from graphc.tensors.methods.pointwise import PointwiseMethods
from graphc.tensors.methods.random import RandomMethods
from graphc.tensors.methods.reduction import ReductionMethods
from graphc.tensors.methods.shaping import ShapingMethods


class Operations(
    FunctionalMethods, IndexingMethods, PointwiseMethods, ReductionMethods, LinalgMethods, ShapingMethods, RandomMethods
):
    """Functions of tensors as methods, with their in-place forms."""

    __slots__ = ()
