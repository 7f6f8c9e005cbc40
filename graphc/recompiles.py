"""Why compiled functions captured a call again, or could not be captured. GRAPHC_LOGS=recompiles prints it."""

from __future__ import annotations

import os
import sys

_reasons: list[str] = []


def explain_recompiles() -> list[str]:
    """Why compiled functions captured a call again, or could not be captured, in order."""
    return list(_reasons)


def report(text: str) -> None:
    """Note a reason."""
    _reasons.append(text)
    if "recompiles" in os.environ.get("GRAPHC_LOGS", ""):
        print(f"graphc: {text}", file=sys.stderr)
