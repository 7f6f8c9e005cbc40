"""Models as users write them, each for PyTorch or graphc, which is the argument `torch`."""

from __future__ import annotations

from tests.differential.models import others, pictures, text
from tests.differential.models.base import Make

MODELS: dict[str, Make] = {**text.MODELS, **pictures.MODELS, **others.MODELS}
