"""Tables of rewrite rules. Each table is a tuple of `Rule`; tables are added with `+`."""

from graphc.passes.rules.arithmetic import ARITHMETIC
from graphc.passes.rules.casts import CASTS
from graphc.passes.rules.constants import CONSTANTS
from graphc.passes.rules.logic import LOGIC
from graphc.passes.rules.movement import MOVEMENT
from graphc.passes.rules.pooling import POOLING
from graphc.passes.rules.reduction import REDUCTION
from graphc.passes.rules.rows import ROWS

ALL_RULES = CONSTANTS + ARITHMETIC + LOGIC + CASTS + MOVEMENT + REDUCTION + POOLING + ROWS

__all__ = ["ALL_RULES", "ARITHMETIC", "CASTS", "CONSTANTS", "LOGIC", "MOVEMENT", "POOLING", "REDUCTION", "ROWS"]
