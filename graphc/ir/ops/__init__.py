"""The primitive operators, one record each. Importing this package fills the registry `graphc.ir.opdef.OPS`."""

from graphc.ir.ops import (
    alignment,
    bessel,
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
    special,
    special_host,
)

__all__ = [
    "alignment",
    "bessel",
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
    "special",
    "special_host",
]
