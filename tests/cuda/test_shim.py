"""The host shim itself: kernels written by hand give what CUDA gives, and what CUDA does not allow is found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.cuda.shim import ShimError, Unit, compiler

TEXT = Path(__file__).with_name("kernels.cu").read_text()
ORDERS = (0, 1, 2, 12345)


@pytest.fixture(scope="module", autouse=True)
def has_compiler() -> None:
    compiler()


@pytest.fixture(scope="module", params=["plain", "checked"])
def unit(request: pytest.FixtureRequest) -> Unit:
    return Unit(TEXT, request.param)


@pytest.fixture(scope="module")
def checked() -> Unit:
    return Unit(TEXT, "checked")


def launch(
    unit: Unit,
    name: str,
    blocks: int | tuple[int, ...],
    threads: int | tuple[int, ...],
    *arrays: np.ndarray,
    shared: int = 0,
    order: int = 0,
) -> None:
    for array in arrays:
        assert array.flags.c_contiguous
    ranges = [(f"array {i}", a.ctypes.data, a.nbytes) for i, a in enumerate(arrays)]
    unit.launch(name, blocks, threads, [a.ctypes.data for a in arrays], shared, order, ranges)


def zeros(size: int, dtype: type = np.float32) -> np.ndarray:
    """Aligned for wide accesses."""
    memory = np.zeros(size * np.dtype(dtype).itemsize + 64, np.uint8)
    return memory[-memory.ctypes.data % 64 :][: size * np.dtype(dtype).itemsize].view(dtype)


@pytest.mark.parametrize("order", ORDERS)
def test_shuffles_and_barriers(unit: Unit, order: int) -> None:
    x, sums = np.arange(1024, dtype=np.float32), zeros(4)
    launch(unit, "block_sums", 4, 256, x, sums, order=order)
    np.testing.assert_array_equal(sums, x.reshape(4, 256).sum(1))


@pytest.mark.parametrize("order", ORDERS)
def test_shared_tiles_in_two_dimensions(unit: Unit, order: int) -> None:
    x, y = np.arange(96 * 96, dtype=np.float32), zeros(96 * 96)
    launch(unit, "transpose", (3, 3), (32, 8), x, y, order=order)
    np.testing.assert_array_equal(y.reshape(96, 96), x.reshape(96, 96).T)


@pytest.mark.parametrize("order", ORDERS)
def test_atomics(unit: Unit, order: int) -> None:
    x = np.random.default_rng(0).integers(0, 10, 512).astype(np.int32)
    counts, most, total = zeros(10, np.int32), np.array([-5, 7], np.int32), zeros(1)
    launch(unit, "count_values", 8, 64, x, counts, most, total, order=order)
    np.testing.assert_array_equal(counts, np.bincount(x, minlength=10))
    assert most.tolist() == [9, 7] and total[0] == x.sum()


@pytest.mark.parametrize("order", ORDERS)
def test_barriers_in_a_loop_and_dynamic_shared_memory(unit: Unit, order: int) -> None:
    x, y = np.arange(200, dtype=np.float32), zeros(200)
    launch(unit, "prefix_sums", 1, 200, x, y, shared=800, order=order)
    np.testing.assert_array_equal(y, np.cumsum(x))


@pytest.mark.parametrize("order", ORDERS)
def test_operations_of_a_warp(unit: Unit, order: int) -> None:
    y = zeros(640, np.int32)
    launch(unit, "warp_operations", 1, 64, y, order=order)
    for i, out in enumerate(y.reshape(64, 10).tolist()):
        warp, lane = i // 32 * 32, i % 32
        votes = sum(1 << k for k in range(32) if (warp + k) % 3 == 0)
        assert out == [
            warp + (lane + 1) % 32 + (1000 * (i ^ 1) if i < 8 else 0),
            i - 3 if lane >= 3 else i,
            i + 3 if lane % 16 + 3 < 16 else i,
            i ^ 5,
            i // 8 * 8 + 1,
            votes - (1 << 32) * (votes >> 31),
            int(i >= 32),
            int(i < 32),
            32,
            1,
        ]


def test_three_dimensions(unit: Unit) -> None:
    y = zeros(24 * 60, np.int32)
    launch(unit, "places", (2, 3, 4), (3, 4, 5), y)
    np.testing.assert_array_equal(y.reshape(24, 60), 100 * np.arange(24)[:, None] + np.arange(60))


def test_arithmetic_is_ieee_without_contraction(unit: Unit) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(256) * 10.0 ** rng.integers(-20, 18, 256)).astype(np.float32), np.float32(1) / 3
    a[:6] = [0.5, 1.5, -0.5, np.inf, np.nan, 1e-41]
    b = (rng.standard_normal(256)).astype(np.float32)
    y = zeros(9 * 256)
    launch(unit, "arithmetic", 2, 128, a, b, y)
    with np.errstate(all="ignore"):
        fused = (a.astype(np.longdouble) * b + a).astype(np.float32)
        expected = [
            a * b + a,
            fused,
            a / b,
            np.sqrt(np.abs(a)),
            np.rint(a),
            np.floor(a),
            np.trunc(a),
            a * np.float32(1e-40),
            -a,
        ]
    assert (expected[0] != fused).any(), "the numbers show no difference between fused and not"
    np.testing.assert_array_equal(y.reshape(9, 256), expected)


def test_wide_accesses(unit: Unit) -> None:
    x, y = zeros(256), zeros(256)
    x[:] = np.arange(256)
    launch(unit, "wide", 2, 32, x, y, np.zeros(1, np.float32))
    expected = x.reshape(64, 4).copy()
    expected[:, 0] += 1
    expected[:, 3] = expected[:, 1] * expected[:, 2]
    np.testing.assert_array_equal(y.reshape(64, 4), expected)


def test_threads_of_a_warp_may_wait_for_each_other_alone(unit: Unit) -> None:
    y = zeros(64)
    launch(unit, "syncwarp_is_enough", 1, 64, y)
    np.testing.assert_array_equal(y, np.arange(64) ^ 1)


def test_a_launch_after_a_failure_starts_afresh(unit: Unit) -> None:
    x, y = np.arange(200, dtype=np.float32), zeros(200)
    with pytest.raises(ShimError, match="divergent barrier"):
        launch(unit, "some_wait", 3, 64, y)
    launch(unit, "prefix_sums", 1, 200, x, y, shared=800)
    np.testing.assert_array_equal(y, np.cumsum(x))


# what is wrong

WRONG_KERNELS = [
    ("no_barrier", 1, 64, [64], "race: thread .* of shared memory, which thread .* of this block .*, with no barrier"),
    (
        "no_barrier_after_reading",
        1,
        64,
        [128],
        "race: .* of shared memory, which .* of this block (wrote|read), with no",
    ),
    (
        "threads_write_one_place",
        1,
        32,
        [32],
        "race: thread 1 writes byte 0 of array 0, which thread 0 of this block wrote",
    ),
    (
        "blocks_write_one_place",
        2,
        32,
        [32],
        "race: thread 0 writes byte 0 of array 0, which thread 0 of another block wrote",
    ),
    (
        "block_reads_what_another_writes",
        2,
        32,
        [64],
        "race: .* writes byte 128 of array 0, which .* of another block read",
    ),
    ("atomic_and_not", 1, 32, [1], "race: thread 5 writes byte 0 of array 0, which thread 4 of this block changed"),
    ("past_the_end", 1, 32, [32, 32], "thread 31 reads 4 bytes at byte 128 of array 0, which has 128 bytes"),
    ("before_the_start", 1, 32, [32], "thread 0 writes 4 bytes at byte -4 of array 0"),
    ("past_shared", 1, 32, [32], "thread 31, an index is outside of its array"),
    ("unwritten_shared", 1, 32, [32], "thread 7 reads shared memory that no thread of its block wrote"),
    ("some_wait", 1, 64, [64], "thread 0 and 47 more wait at the barrier of line .*, 16 threads have ended"),
    ("wait_at_two_places", 1, 64, [64], "divergent barrier: thread 0 waits at line .*, thread 48 at line"),
    ("lanes_are_missing", 1, 32, [32], "__shfl_xor_sync of line .* for lanes 0xffffffff, but only 0xffff came"),
    ("lane_not_in_the_mask", 1, 32, [32], "reads lane 20 at __shfl_sync of line .*, where only lanes 0xffff take part"),
]


@pytest.mark.parametrize(
    ("name", "blocks", "threads", "sizes", "message"), WRONG_KERNELS, ids=[w[0] for w in WRONG_KERNELS]
)
def test_what_is_not_allowed_is_found(
    checked: Unit, name: str, blocks: int, threads: int, sizes: list[int], message: str
) -> None:
    arrays = [zeros(size) for size in sizes]
    with pytest.raises(ShimError, match=message) as caught:
        launch(checked, name, blocks, threads, *arrays)
    assert name in str(caught.value)


def test_a_race_is_found_in_every_order(checked: Unit) -> None:
    for order in ORDERS:
        with pytest.raises(ShimError, match="race"):
            launch(checked, "no_barrier", 1, 64, zeros(64), order=order)


def test_a_line_of_the_unit_is_named(checked: Unit) -> None:
    with pytest.raises(ShimError, match=r"at line \d+\n *\d+: .*y\[threadIdx.x\] = x\[threadIdx.x \+ 1\]"):
        launch(checked, "past_the_end", 1, 32, zeros(32), zeros(32))
    with pytest.raises(ShimError, match=r"\n *\d+: if \(threadIdx.x < 48\) __syncthreads\(\);"):
        launch(checked, "some_wait", 1, 64, zeros(64))


def test_dynamic_shared_memory_ends_where_the_launch_says(checked: Unit) -> None:
    y = zeros(32)
    launch(checked, "past_dynamic", 1, 32, y, shared=128)
    np.testing.assert_array_equal(y, np.ones(32))
    with pytest.raises(
        ShimError, match="thread 31 writes 4 bytes at byte 124 of dynamic shared memory, which has 124 bytes"
    ):
        launch(checked, "past_dynamic", 1, 32, y, shared=124)


def test_memory_of_a_thread(checked: Unit) -> None:
    x, y = zeros(8), zeros(32)
    launch(checked, "past_local", 1, 32, x, y)
    x[0] = 8
    with pytest.raises(ShimError, match="an index is outside of its array"):
        launch(checked, "past_local", 1, 32, x, y)


def test_integers_that_overflow(checked: Unit) -> None:
    x = np.array([2**31 - 1, 0], np.int32)
    launch(checked, "overflow", 1, 1, x, zeros(1, np.int32))
    x[1] = 1
    with pytest.raises(ShimError, match="a signed sum overflows"):
        launch(checked, "overflow", 1, 1, x, zeros(1, np.int32))


def test_wide_accesses_must_be_aligned(checked: Unit) -> None:
    x, y = zeros(260), zeros(256)
    launch(checked, "wide", 2, 32, x, y, np.full(1, 4, np.float32))
    with pytest.raises(ShimError, match="misaligned"):
        launch(checked, "wide", 2, 32, x, y, np.full(1, 1, np.float32))


def test_traps(checked: Unit) -> None:
    y = zeros(1)
    launch(checked, "trap", 1, 1, y)
    with pytest.raises(ShimError, match="thread 0 traps at line"):
        launch(checked, "trap", 1, 1, np.ones(1, np.float32))


def test_wrong_launches_are_refused(unit: Unit) -> None:
    x, y = zeros(256), zeros(1)
    with pytest.raises(ShimError, match="no kernel nothing; it has block_sums, transpose"):
        launch(unit, "nothing", 1, 1)
    with pytest.raises(ShimError, match="block_sums cannot have 512 threads"):
        launch(unit, "block_sums", 1, 512, x, y)
    with pytest.raises(ShimError, match="block_sums has 2 parameters, got 1"):
        launch(unit, "block_sums", 1, 256, x)


def test_text_that_is_no_cuda_c() -> None:
    with pytest.raises(ShimError, match=r"unit.cu:2:.*was not declared"):
        Unit('extern "C" __global__ void k(float* p0) {\n  p0[0] = unknown;\n}\n')
