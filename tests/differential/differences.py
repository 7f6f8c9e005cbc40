"""What is different from PyTorch on purpose or of necessity, for docs/pytorch.md: where, what, why."""

from __future__ import annotations

DIFFERENCES: tuple[tuple[str, str, str], ...] = (
    (
        "when work runs",
        "operations are recorded and run when a value is looked at",
        "that is what lets them be compiled",
    ),
    ("indices out of range", "IndexError when the result is looked at", "the check is part of the recorded program"),
)

# Which functions use each operator that runs on the host.
HOST_NOTES: dict[str, str] = {
    "argsort": "`argsort`, `sort` and what is built on them",
}
