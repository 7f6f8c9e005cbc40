"""Kernels under AddressSanitizer, in processes of their own: it watches the arrays that a thread has for itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cuda.shim import preloaded

ROOT = Path(__file__).resolve().parents[2]
# Operators whose kernels have arrays of a thread's own.
OPERATORS = "reduce_prod or window or fold or argsort or scan_prod"
OVERFLOW = """
import numpy as np
from tests.cuda.shim import Unit
unit = Unit(open("tests/cuda/kernels.cu").read(), "address")
x, y = np.full(8, 4, np.float32), np.zeros(1, np.float32)
for x[0] in (4, 8):
    unit.launch("wide_past_local", 1, 1, [x.ctypes.data, y.ctypes.data])
    print("ran", x[0], flush=True)
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = preloaded(GRAPHC_SHIM_VARIANT="address", PYTHONPATH=f"{ROOT}:{ROOT / 'runtime'}")
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_a_wide_access_past_an_array_of_a_thread_is_found(host_compiler: str) -> None:
    done = run("-c", OVERFLOW)
    assert done.stdout == "ran 4.0\n"
    assert "AddressSanitizer: stack-buffer-overflow" in done.stderr
    assert "wide_past_local" in done.stderr


@pytest.mark.slow
def test_the_corpus(host_compiler: str) -> None:
    done = run("-m", "pytest", "-q", "-p", "no:xdist", "tests/cuda/test_conformance.py", "-k", OPERATORS)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert " passed" in done.stdout
