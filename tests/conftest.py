"""Settings of the whole test run: a kernel cache of its own, shared by the workers and removed at the end; and the flag
that takes new texts over.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

import pytest

if "GRAPHC_CACHE_DIR" not in os.environ:
    folder = tempfile.mkdtemp(prefix="graphc-tests-")
    os.environ["GRAPHC_CACHE_DIR"] = folder  # workers and child processes inherit it
    atexit.register(shutil.rmtree, folder, ignore_errors=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the texts that golden tests compare with")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))
