"""The primitive operators, one record each. Importing this package fills the registry `graphc.ir.opdef.OPS`."""

from graphc.ir.ops import (
    alignment,
    contract,
    drawing,
    elementwise,
    indexing,
    inverse,
    movement,
    paired,
    reduce,
    scan,
    scattering,
    sorting,
    source,
)

__all__ = [
    "alignment",
    "contract",
    "drawing",
    "elementwise",
    "indexing",
    "inverse",
    "movement",
    "paired",
    "reduce",
    "scan",
    "scattering",
    "sorting",
    "source",
]
