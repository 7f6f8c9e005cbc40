"""Buffers: alignment, sharing, re-use of memory, sizes that cannot be, poison."""

from __future__ import annotations

import gc
import threading

import ml_dtypes
import numpy as np
import pytest

from graphc_runtime import Buffer, OutOfMemory, TensorSpec, counters, memory_stats, release_memory, reset_peak
from graphc_runtime.buffer import size_class
from graphc_runtime.counters import reset as counters_reset
from graphc_runtime.options import IDLE_BYTES, scope
from tests.runtime.native import python


@pytest.mark.parametrize("nbytes", [0, 1, 63, 64, 65, 4096, 1 << 20, (1 << 20) + 1])
def test_allocate(nbytes: int) -> None:
    buffer = Buffer.allocate(nbytes)
    assert buffer.nbytes == nbytes
    assert buffer.ptr % 64 == 0
    assert buffer.ptr
    assert buffer.array.shape == (nbytes,)
    assert buffer.array.dtype == np.uint8
    assert buffer.writeable
    buffer.array[:] = 7
    assert (buffer.array == 7).all()
    if nbytes:
        assert buffer.array.__array_interface__["data"][0] == buffer.ptr


def test_size_classes_waste_little() -> None:
    for nbytes in [*range(0, 3000, 7), *(3**k for k in range(8, 30))]:
        size = size_class(nbytes)
        assert size >= max(1, nbytes)
        assert size % 64 == 0
        assert size <= max(64, nbytes + max(64, nbytes // 8)), nbytes
        assert size_class(size) == size


def test_view_shares_memory() -> None:
    buffer = Buffer.allocate(24)
    view = buffer.view(np.float32, (2, 3))
    view[...] = np.arange(6).reshape(2, 3)
    assert buffer.view(np.dtype(np.float32), (6,)).tolist() == [0, 1, 2, 3, 4, 5]
    assert Buffer.allocate(0).view(np.float64, (3, 0)).shape == (3, 0)
    assert Buffer.allocate(4).view(np.int32, ()).shape == ()
    with pytest.raises(ValueError, match="reshape"):
        buffer.view(np.float32, (7,))
    with pytest.raises(ValueError, match="divisor"):
        Buffer.allocate(5).view(np.float32, (1,))


def test_from_array_shares_memory() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    buffer = Buffer.from_array(array)
    assert buffer.nbytes == 24
    buffer.view(np.float32, (6,))[2] = 50
    assert array[0, 2] == 50
    array[1, 0] = -3
    assert buffer.view(np.float32, (2, 3))[1, 0] == -3
    odd = np.zeros(9, np.uint8)[1:]
    assert Buffer.from_array(odd).ptr == odd.__array_interface__["data"][0]


@pytest.mark.parametrize("dtype", [np.bool_, np.int8, np.float64, ml_dtypes.bfloat16, np.float16])
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (2, 3)])
def test_from_array_takes_every_dtype_and_shape(dtype: type, shape: tuple[int, ...]) -> None:
    array = np.ones(shape, dtype)
    buffer = Buffer.from_array(array)
    assert buffer.nbytes == array.nbytes
    assert (buffer.view(dtype, shape) == array).all()


def test_from_array_refuses_what_it_cannot_share() -> None:
    array = np.zeros((4, 4), np.float32)
    for wrong in (array.T[:, :2], array[:, ::2], array[::-1], np.broadcast_to(np.float32(1), (3, 3))):
        with pytest.raises(ValueError, match="not C-contiguous"):
            Buffer.from_array(wrong)
    for wrong in (np.zeros(2, ">f4"), np.array([None])):
        with pytest.raises(ValueError, match="native byte order"):
            Buffer.from_array(wrong)


def test_read_only_arrays_stay_read_only() -> None:
    array = np.arange(4)
    array.flags.writeable = False
    buffer = Buffer.from_array(array)
    assert not buffer.writeable
    with pytest.raises(ValueError, match="read-only"):
        buffer.view(np.int64, (4,))[0] = 1


def test_memory_lives_as_long_as_a_view() -> None:
    gc.collect()
    before = memory_stats().live_bytes
    buffer = Buffer.allocate(1 << 16)
    part = buffer.view(np.float32, (1 << 14,))[100:200].reshape(10, 10).T
    part[...] = 3
    del buffer
    assert memory_stats().live_bytes == before + (1 << 16)
    others = [Buffer.allocate(1 << 16) for _ in range(5)]
    for other in others:
        other.array[:] = 0
    assert (part == 3).all()
    del part
    assert memory_stats().live_bytes == before + 5 * (1 << 16)
    del others, other
    assert memory_stats().live_bytes == before


def test_memory_is_used_again() -> None:
    keep = Buffer.allocate(10_000).ptr
    before = counters()["allocations"]
    for _ in range(1000):
        assert Buffer.allocate(10_000).ptr == keep
        assert Buffer.allocate(9_999).array.size == 9_999
    assert counters()["allocations"] == before


def test_what_came_back_last_is_taken_first() -> None:
    gc.collect()
    first, second = Buffer.allocate(5000), Buffer.allocate(9000)
    places, live = (first.ptr, second.ptr), memory_stats().live_bytes
    for _ in range(3):
        del second, first  # the first comes back last, and is asked for first
        first, second = Buffer.allocate_all([5000, 9000], ["one", "two"])
        assert (first.ptr, second.ptr) == places
    del first, second
    small = Buffer.allocate(5000)
    assert small.ptr == places[0]
    assert memory_stats().live_bytes == live - size_class(9000)
    with pytest.raises(OutOfMemory, match="for the huge one"):
        Buffer.allocate_all([9000, 1 << 62], ["the small one", "the huge one"])
    assert memory_stats().live_bytes == live - size_class(9000)


def test_the_counted_peak_starts_again_with_what_is_taken_again() -> None:
    held = Buffer.allocate(5000)
    del held
    counters_reset()
    held = Buffer.allocate(5000)
    assert counters()["peak_bytes"] == memory_stats().live_bytes
    assert held.nbytes == 5000


def test_idle_memory_is_capped() -> None:
    release_memory()
    try:
        IDLE_BYTES.set(2 << 20)
        buffers = [Buffer.allocate(1 << 18) for _ in range(16)]
        small = [Buffer.allocate(64 * k) for k in range(1, 9)]
        del buffers, small
        assert 0 < memory_stats().idle_bytes <= 2 << 20
        release_memory()
        assert memory_stats().idle_bytes == 0
    finally:
        IDLE_BYTES.reset()


def test_a_large_block_serves_what_is_a_little_smaller() -> None:
    gc.collect()
    release_memory()
    first = Buffer.allocate(40 << 20)
    address = first.ptr
    del first
    second = Buffer.allocate(36 << 20)
    assert second.ptr == address and second.nbytes == 36 << 20
    assert memory_stats().idle_bytes == 0
    del second
    third = Buffer.allocate(40 << 20)  # it is still known as what it is
    assert third.ptr == address
    del third
    half = Buffer.allocate(20 << 20)
    assert half.ptr != address
    del half
    release_memory()


def test_large_blocks_of_other_sizes_are_not_kept_beside_each_other() -> None:
    gc.collect()
    release_memory()
    reset_peak()
    live = memory_stats().live_bytes
    for size in (40, 64, 96, 64, 40):
        buffer = Buffer.allocate(size << 20)
        stats = memory_stats()
        assert stats.live_bytes + stats.idle_bytes <= stats.peak_bytes * 3 // 2
        del buffer
    assert memory_stats().peak_bytes == live + (96 << 20)
    release_memory()


def test_peak() -> None:
    gc.collect()
    reset_peak()
    start = memory_stats()
    assert start.peak_bytes == start.live_bytes
    both = Buffer.allocate(1 << 20), Buffer.allocate(1 << 20)
    del both
    one = Buffer.allocate(1 << 20)
    stats = memory_stats()
    assert stats.peak_bytes == start.live_bytes + (2 << 20)
    assert stats.live_bytes == start.live_bytes + (1 << 20)
    assert counters()["peak_bytes"] >= stats.peak_bytes
    assert one.nbytes == 1 << 20


def test_impossible_sizes() -> None:
    before = memory_stats().live_bytes
    for exponent in (45, 50, 62, 63, 64, 100):
        with pytest.raises(OutOfMemory, match=r"f32\[2,3\].*this process may have") as caught:
            Buffer.allocate(1 << exponent, TensorSpec("f32", (2, 3)))
        assert isinstance(caught.value, MemoryError)
        assert f"{1 << exponent:,} bytes" in str(caught.value)
    assert memory_stats().live_bytes == before
    with pytest.raises(ValueError, match="-1 bytes"):
        Buffer.allocate(-1)


def test_memory_that_the_system_refuses() -> None:
    done = python(
        "import resource, numpy as np\n"
        "from graphc_runtime import Buffer, OutOfMemory\n"
        "from pathlib import Path\n"
        "used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (600 << 20),) * 2)\n"
        "idle = Buffer.allocate(250 << 20)\n"
        "del idle\n"
        "assert Buffer.allocate(400 << 20).nbytes == 400 << 20  # after giving back what was idle\n"
        "for _ in range(200):\n"
        "    try:\n"
        "        Buffer.allocate(used + (500 << 20))\n"
        "    except OutOfMemory as error:\n"
        "        assert 'refused' in str(error) or 'may have' in str(error)\n"
        "    else:\n"
        "        raise SystemExit('it gave memory')\n"
        "assert Buffer.allocate(1000).nbytes == 1000\n"
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_poison() -> None:
    Buffer.allocate(4096).array[:] = 0
    with scope(poison=True):
        buffer = Buffer.allocate(4096)
        assert (buffer.array == 0xFF).all()
        assert np.isnan(buffer.view(np.float32, (1024,))).all()
    done = python(
        "from graphc_runtime import Buffer; print((Buffer.allocate(100).array == 255).all())",
        environment={"GRAPHC_POISON": "1"},
    )
    assert done.stdout == "True\n"


def test_threads_and_cycles() -> None:
    gc.collect()  # what other tests left
    before = memory_stats().live_bytes
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for i in range(2000):
                buffer = Buffer.allocate(64 * (1 + (i * seed) % 50))
                array = buffer.array
                array[:] = seed
                loop: list[object] = [buffer]
                loop.append(loop)
                assert (array == seed).all()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    assert not failures
    assert memory_stats().live_bytes == before


def test_buffers_of_one_visit() -> None:
    sizes = (16, 0, 1000, 16)
    made = Buffer.allocate_all(sizes, ("a",) * 4)
    assert [b.nbytes for b in made] == list(sizes) and len({b.ptr for b in made}) == 4
    assert all(b.of_pool and b.ptr % 64 == 0 for b in made)
    live = memory_stats().live_bytes
    with pytest.raises(OutOfMemory, match="for the second"):
        Buffer.allocate_all((1 << 10, 1 << 60), ("the first", "the second"))
    assert memory_stats().live_bytes == live, "the first one went back"


def test_a_copy_is_memory_of_its_own() -> None:
    source = Buffer.from_array(np.arange(5, dtype=np.int32))
    made = source.copy()
    assert made.of_pool and not source.of_pool and made.ptr != source.ptr
    assert made.view(np.int32, (5,)).tolist() == [0, 1, 2, 3, 4]
