"""Every public name of `graphc` that computes, one file a family. `graphc/__init__.py` loads it on the first use."""

import graphc.native.operators  # for operators that are used often
from graphc.api.autograd import *
from graphc.api.core import *
from graphc.api.creation import *
from graphc.api.functional import *
from graphc.api.in_place import *
from graphc.api.indexing import *
from graphc.api.linalg import *
from graphc.api.native import *
from graphc.api.pointwise import *
from graphc.api.random import *
from graphc.api.recurrent import *
from graphc.api.reduction import *
from graphc.api.saving import *
from graphc.api.shaping import *
from graphc.api.spatial import *
from graphc.api.switches import *
