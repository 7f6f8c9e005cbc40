"""The functions behind the layers, under PyTorch's name: `import graphc.nn.functional as F`."""

from __future__ import annotations

from graphc.functional import *  # noqa: F403
