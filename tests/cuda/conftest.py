"""CUDA devices for the tests of this folder: those of the host shim or, with GRAPHC_TEST_DEVICE=cuda, real ones."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from graphc import programs, recurrent_pieces, served
from graphc.codegen.cuda import build
from graphc.recording import Recorder, using
from graphc_runtime.devices import cuda as cuda_devices
from graphc_runtime.devices.cuda import register_cuda_driver, why_unavailable
from tests.cuda.driver import ShimDriver
from tests.cuda.machine import Machine, ShimCompiler
from tests.cuda.shim import compiler

IS_REAL = os.environ.get("GRAPHC_TEST_DEVICE", "").startswith("cuda")


@pytest.fixture(scope="session")
def host_compiler() -> str:
    """The C++ compiler of the host; tests are skipped when there is none."""
    return compiler()


def _installed(variant: str) -> Iterator[Machine]:
    """Devices of the shim as cuda:0 and cuda:1, while tests use them."""
    driver = ShimDriver(variant=variant)
    if seed := os.environ.get("GRAPHC_SHIM_SEED"):
        driver.shuffle(int(seed))
    yield from _registered(driver)


def _registered(driver: ShimDriver) -> Iterator[Machine]:
    """Devices of `driver`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "compiler", ShimCompiler)
        opened = dict(cuda_devices._devices)
        before = register_cuda_driver(driver)
        with _no_programs():
            yield Machine(driver)
        register_cuda_driver(before)
        cuda_devices._devices.update(opened)  # programs of the driver before were made for these


@contextmanager
def _no_programs() -> Iterator[None]:
    """No program that was made for the devices of another driver."""
    with pytest.MonkeyPatch.context() as patch, using(Recorder()):
        patch.setattr(programs, "_executables", OrderedDict())
        patch.setattr(programs, "_variants", {})
        patch.setattr(served, "_like", OrderedDict())
        recurrent_pieces._compiled.cache_clear()
        yield


@pytest.fixture(scope="module")
def cuda(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """The CUDA devices that tests run on. A module says by SHIM_VARIANT how units of the shim are compiled."""
    if IS_REAL:
        if why := why_unavailable():
            pytest.fail(f"GRAPHC_TEST_DEVICE asks for a GPU: {why}")
        with _no_programs():
            yield Machine(None)
        return
    request.getfixturevalue("host_compiler")
    usual = getattr(request.module, "SHIM_VARIANT", "plain")
    yield from _installed(os.environ.get("GRAPHC_SHIM_VARIANT", usual))


@pytest.fixture(scope="module")
def checked_driver(host_compiler: str) -> ShimDriver:
    """The driver that the tests of a module share for `checked`."""
    return ShimDriver(variant="checked")


@pytest.fixture
def checked(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """Devices of the shim whose kernels are checked, for one test: accesses out of bounds, races, divergence. Others of
    the module may use those of `cuda`.
    """
    if IS_REAL:
        pytest.skip("compute-sanitizer checks kernels on a GPU")
    yield from _registered(request.getfixturevalue("checked_driver"))
