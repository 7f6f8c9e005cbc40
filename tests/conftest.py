"""Settings of the whole test run: a kernel cache of its own, shared by the workers and removed at the end; the flag
that takes new texts over; and what is collected stays out of the garbage collector's way.
"""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator

import pytest

from tests.codegen.once import kernels_built_once

if "GRAPHC_CACHE_DIR" not in os.environ:
    folder = tempfile.mkdtemp(prefix="graphc-tests-")
    os.environ["GRAPHC_CACHE_DIR"] = folder  # workers and child processes inherit it
    atexit.register(shutil.rmtree, folder, ignore_errors=True)

# Thousands of tests make many variants of each small program, and are about compiled ones.
os.environ.setdefault("GRAPHC_INTERPRET", "0")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the texts that golden tests compare with")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of tests that are marked `share(n)` about one case in n stays, the same in each run; the others are slow."""
    for item in items:
        share = item.get_closest_marker("share")
        if share is not None and zlib.crc32(item.name.encode()) % share.args[0]:
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """Thousands of tests and all modules live to the end: no collection of garbage has to look at them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def what_stays_is_not_looked_at() -> None:
    """Caches grow from module to module: a test that collects garbage again and again has only its own to look at."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def kernels_are_built_once() -> Iterator[None]:
    """A kernel that tests have in common is built for the first of them."""
    with kernels_built_once():
        yield


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))
