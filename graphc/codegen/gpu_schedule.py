"""Schedules for GPUs: each point of a domain is a thread, or a block of threads that work on its rows together.

Memory is what counts: it moves whole sectors, so neighbouring threads should touch neighbouring elements. In a kernel
of threads those are the places of one axis of the domain, in a kernel of blocks those of a row. Costs are in cycles of
a multiprocessor, and as rough as they need to be to tell these cases apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from graphc.codegen.extremes import is_place
from graphc.codegen.loops import reduction_loops
from graphc.codegen.schedule import MAX_UNROLLED, Schedule
from graphc.codegen.sites import Access, Nest, Site, unrolled
from graphc.codegen.target import WARP, Target
from graphc.ir.demand import UNROLLED_REDUCTION
from graphc.ir.index import Data, Ix, Var
from graphc.ir.node import Node

SECTOR = 32  # bytes that memory moves at least
RESIDENT = 2048  # threads of a multiprocessor that take turns
BLOCKS = 32  # blocks of a multiprocessor at once
BANDWIDTH = 16  # bytes of memory for a multiprocessor in a cycle
RATE = 128  # operations of a multiprocessor in a cycle
STEP = 100  # cycles between steps of a loop that loads, several of them under way
HELD_STEP = 30  # likewise, all of them under way at once
START = 500  # cycles until a block has its first element
DISPATCH = 130  # cycles of a multiprocessor from the beginning of a block to that of the next one, at least
TOGETHER = 8  # rows of which each has a warp that share a block
ACROSS = 60  # cycles of a reduction across the threads of a block
WIDTHS = (32, 64, 128, 256, 512, 1024)  # threads of a block
HELD = 32  # elements of a row that a thread holds in registers, at most
MOST = 128  # registers of a thread, so that others remain
OTHER = 28  # of them for all else
SPLIT = 4  # independent partial results of a reduction that loops
VECTOR = 8  # lanes of a thread, at most
TURNED = 4  # lanes of a thread that transposes blocks of so many by so many elements
BLOCKED = 1.1  # times the sectors of neighbouring threads, for blocks
NEAR = 0.7  # share of the second cache that rows at work may take
AGAIN = 0.4  # cost of what is read again from there
NEIGHBOURS = 1.25  # times the sectors of neighbouring threads, for elements that one thread has side by side
REST = 0.1  # share of costs that others hide


def make_gpu_schedule(nest: Nest, target: Target, is_aligned: bool = True) -> Schedule:
    """Choose threads or blocks for `nest`. `is_aligned`: its parameters begin where vectors of memory do."""
    axes = [v for v in nest.axes if v.hi > 0]
    options: list[tuple[float, int, Schedule]] = []
    for number, schedule in enumerate(_options(nest, axes, target)):
        if schedule.threads == 1 and any(s.is_kept for s in nest.sites):
            continue
        if schedule.turned is not None and not is_aligned:
            continue
        options.append((_cycles(nest, schedule, target), number, schedule))
    schedule = min(options, key=lambda option: option[:2])[2]
    if is_aligned:
        widen = _widen if schedule.threads == 1 else _widen_rows
        widen(nest, schedule, target)
    return schedule


def keeping_pays_on_gpu(kept: Nest, plain: Nest, target: Target) -> bool:
    """Whether rows should be kept in shared memory: they fit, and registers do not hold them anyway."""
    schedule = make_gpu_schedule(plain, target)
    if schedule.threads == 1 or _held(plain, schedule, target):
        return False
    rows = (s for s in kept.sites if s.is_kept and s.root is not None)
    nbytes = sum(math.prod(v.hi + 1 for v in s.loops) * s.root.value.dtype.itemsize for s in rows if s.root is not None)
    return nbytes <= target.l1_bytes // 2


def _options(nest: Nest, axes: Sequence[Var], target: Target) -> Iterator[Schedule]:
    """Kernels of threads with each axis the fastest, the last one first; then blocks of all widths."""
    for fastest in [*reversed(axes)] or [None]:
        schedule = _threads(nest, fastest)
        for site in nest.sites:
            schedule.unrolled[site], schedule.loop_order[site] = reduction_loops(site, schedule)[0]
            innermost = schedule.loop_order[site][-1:]
            schedule.split[site] = max([1, *(min(SPLIT, (v.hi + 1) // SPLIT) for v in innermost)])
        yield schedule
    yield from _rows_in_threads(nest, axes)
    yield from _turned(nest, axes)
    if any(s.stage is not None and s.stage.op == "contract" for s in nest.sites):
        return
    longest = max((v.hi + 1 for s in nest.sites for v in s.loops), default=1)
    if longest == 1:
        return
    for threads in WIDTHS:
        if threads > WARP and threads >= 2 * longest:
            return
        schedule = Schedule(threads, None, [*nest.axes], dict.fromkeys(nest.axes, 1), threads=threads)
        for site in nest.sites:
            lane = _own_lane(site)
            if lane is not None:
                schedule.site_lane[site] = lane
            schedule.unrolled[site], schedule.loop_order[site] = reduction_loops(site, schedule)[0]
        held = _held(nest, schedule, target)
        for site, lane in schedule.site_lane.items():
            count = (lane.hi + 1) // threads
            schedule.split[site] = max(1, count if held else min(SPLIT, count))
        yield schedule


def _threads(nest: Nest, fastest: Var | None) -> Schedule:
    """A thread for each point, with `fastest` the axis that neighbouring threads differ in."""
    last = (fastest,) if fastest is not None else ()
    return Schedule(1, None, [*(v for v in nest.axes if v is not fastest), *last], dict.fromkeys(nest.axes, 1))


def _rows_in_threads(nest: Nest, axes: Sequence[Var]) -> Iterator[Schedule]:
    """Kernels in which a thread computes all places of a short axis, which share work: a softmax over few classes."""
    if any(s.stage is not None or s.loops for s in nest.sites):
        return
    for short in axes:
        if short.hi >= UNROLLED_REDUCTION or all(s.maps < short.hi for s in nest.sites):
            continue
        walk = unrolled(nest, short)
        if walk.operations > MAX_UNROLLED:
            continue
        for fastest in [v for v in reversed(axes) if v is not short] or [None]:
            schedule = _threads(nest, fastest)
            schedule.whole, schedule.tile[short] = short, short.hi + 1
            yield schedule


def _turned(nest: Nest, axes: Sequence[Var]) -> Iterator[Schedule]:
    """Kernels in which a thread transposes small blocks: it loads vectors along one axis and stores them along another,
    where all loads that are strided along the latter are contiguous along the former.
    """
    if any(s.stage is not None or s.loops for s in nest.sites):
        return
    accesses = [a for s in nest.sites for a in s.accesses]
    work = sum(s.operations + len(s.accesses) for s in nest.sites)
    for lane in axes:
        strided = [a for a in accesses if abs(a.address.coefficient(lane)) > 1]
        if not strided or (lane.hi + 1) % TURNED or any(a.is_store for a in strided) or work * TURNED**2 > MAX_UNROLLED:
            continue
        for var in axes:
            fits = var is not lane and var.hi + 1 >= TURNED and all(a.address.coefficient(var) == 1 for a in strided)
            if not fits or any(v in ix.symbols() for ix in nest.other for v in (lane, var)):
                continue
            order = [*(v for v in nest.axes if v is not lane and v is not var), var, lane]
            yield Schedule(TURNED, lane, order, dict.fromkeys(nest.axes, 1) | {var: TURNED}, turned=var)


def _own_lane(site: Site) -> Var | None:
    """The loop of a site that the threads of a block share: the one whose elements lie closest together."""
    loops = [v for v in site.loops if v.hi > 0]
    if site.stage is not None and is_place(site.stage):  # each thread must see its places in their order
        loops = loops[-1:]
    if not loops:
        return None

    def cost(var: Var) -> float:
        waste = math.ceil((var.hi + 1) / WARP) * WARP / (var.hi + 1)
        return waste * sum(_sectors(a, var, ()) for a in site.accesses)

    return min(reversed(loops), key=cost)


def _held(nest: Nest, schedule: Schedule, target: Target) -> int:
    """Registers in which each thread of a block holds its elements of rows, read once; 0 when there are too many."""
    sites = [s for s in nest.sites if s.loops]
    if schedule.threads == 1 or not sites or any(s.is_kept for s in sites):
        return 0
    if any(s not in schedule.site_lane or len(schedule.loop_order[s]) != 1 for s in sites):
        return 0
    count = max(math.ceil((schedule.site_lane[s].hi + 1) / schedule.threads) for s in sites)
    uses: dict[tuple[Node, int], int] = {}
    for site in sites:
        for key in {(a.buffer, a.address.const) for a in site.accesses if not a.is_store and a.address.terms}:
            uses[key] = uses.get(key, 0) + 1
    arrays = max(1, sum(n > 1 for n in uses.values()))
    return (
        count * arrays
        if count <= HELD and count * arrays + OTHER <= min(MOST, target.registers // schedule.threads)
        else 0
    )


def _cycles(nest: Nest, schedule: Schedule, target: Target) -> float:
    """The estimated cost of a schedule: that of what it waits for most, and a little of the rest."""
    threads = schedule.threads
    if schedule.whole is not None:
        return _cycles_of_rows(nest, schedule, schedule.whole, target)
    fastest = schedule.order[-1] if schedule.order and threads == 1 else None
    held = _held(nest, schedule, target)
    kept = {s.root.value for s in nest.sites if s.is_kept and s.root is not None}
    read: dict[tuple[Node, Ix], float] = {}  # sectors of what is read for the first time
    again = work = steps = waits = 0.0
    for site in nest.sites:
        lane = schedule.site_lane.get(site)
        count = math.prod(v.hi + 1 for v in site.loops if v is not lane)
        extent = lane.hi + 1 if lane is not None else 1
        warps = nest.points * count * (1 if threads > 1 and lane is None else extent / WARP)
        for access in site.accesses:
            if access.buffer in kept and threads > 1:
                continue
            across = access.address.coefficient(lane) if lane is not None else 0
            place = access.address if lane is None else access.address + Ix.of(lane, -across)
            if threads == 1:
                touched = _sectors(access, fastest, site.loops)
                size = access.buffer.dtype.itemsize
                sectors = warps * (min(touched, BLOCKED * size) if schedule.turned is not None else touched)
            else:
                sectors = warps * _sectors(access, lane, ())
            if (access.buffer, place) in read:
                again += 0 if held else sectors
            else:
                read[access.buffer, place] = sectors
        each = site.operations + len(site.accesses)
        work += warps * each * (threads if threads > 1 and lane is None else WARP)
        steps += count * math.ceil(extent / threads)
        waits += ACROSS if lane is not None and site.stage is not None else 0
    resident = min(RESIDENT, target.registers // (OTHER + held)) if held else RESIDENT
    shared = TOGETHER if threads == WARP and not kept else 1
    together = target.cores * (RESIDENT if threads == 1 else max(1, min(BLOCKS * shared, resident // threads)))
    waves = max(1.0, nest.points / together)
    first = sum(read.values())
    stays = first * SECTOR / waves < NEAR * target.l2_bytes
    memory = (first + again * (AGAIN if stays else 1)) * SECTOR / (BANDWIDTH * target.cores)
    waiting = waves * (steps * (HELD_STEP if held else STEP) + (START + waits if threads > 1 else 0))
    costs = memory, work / (RATE * target.cores), waiting
    begun = nest.points / shared / target.cores * DISPATCH if threads > 1 else 0
    return max(*costs, begun) + REST * sum(costs)


def _cycles_of_rows(nest: Nest, schedule: Schedule, short: Var, target: Target) -> float:
    """The cost of threads that compute all places of the axis `short`."""
    fastest = schedule.order[-1] if schedule.order[-1] is not short else None
    walk = unrolled(nest, short)
    count = short.hi + 1
    accesses = [(Access(node, ix), 1) for node, ix in walk.loads]
    accesses += [(a, count) for s in nest.sites for a in s.accesses if a.is_store]
    warps = nest.points / count / WARP
    sectors = 0.0
    for access, times in accesses:
        size = access.buffer.dtype.itemsize
        touched = _sectors(access, fastest, ())
        # Neighbours along the short axis lie in the same sectors, which stay near.
        sectors += times * (max(NEIGHBOURS * size, touched * size / SECTOR) if touched > size else touched)
    work = (walk.operations + sum(times for _, times in accesses)) * WARP
    costs = warps * sectors * SECTOR / BANDWIDTH / target.cores, warps * work / RATE / target.cores
    return max(costs) + REST * sum(costs)


def _sectors(access: Access, fastest: Var | None, loops: Sequence[Var]) -> float:
    """Sectors that a warp touches for an access, `fastest` being the variable that neighbouring threads differ in."""
    size = access.buffer.dtype.itemsize
    if fastest is None:
        return 1
    symbols = [s for s, _ in access.address.terms if not isinstance(s, Var) and fastest in Ix.of(s).symbols()]
    if any(isinstance(s, Data) for s in symbols):
        return WARP
    stride = abs(access.address.coefficient(fastest))
    if symbols and stride <= 1:
        return 2 * size  # mostly one element after the other
    if stride == 0:
        return 1
    touched = min(WARP, stride * size * WARP / SECTOR)
    if touched > size and any(abs(access.address.coefficient(v)) == 1 for v in loops):
        return max(2 * size, touched * size / SECTOR)  # the thread itself goes on in the same sectors
    return max(1, touched)


def _widen(nest: Nest, schedule: Schedule, target: Target) -> None:
    """Let each thread compute a few neighbours along the fastest axis, where all that it touches there are vectors of
    memory and enough threads remain.
    """
    if (
        not schedule.order
        or schedule.whole
        or schedule.turned
        or any(s.stage is not None or s.loops for s in nest.sites)
    ):
        return
    lane = schedule.order[-1]
    accesses = [a for s in nest.sites for a in s.accesses]
    threads = target.cores * RESIDENT
    if any(lane in ix.symbols() for ix in nest.other):
        return
    wide = [a for a in accesses if lane in a.address.symbols()]
    if any(a.address.coefficient(lane) != 1 or lane in _without(a.address, lane).symbols() for a in wide):
        return
    most = min(VECTOR, target.vector_bytes // max((a.buffer.dtype.itemsize for a in wide), default=target.vector_bytes))
    lanes = most
    while lanes > 1 and not (_fits(lanes, lane, wide) and nest.points >= threads * lanes):
        lanes //= 2
    if lanes > 1:
        schedule.lanes, schedule.lane = lanes, lane


def _widen_rows(nest: Nest, schedule: Schedule, target: Target) -> None:
    """Let each thread of a block have neighbours of its rows, where all that it touches there are vectors of memory."""
    sites = [s for s in nest.sites if s.loops]
    if any(s.is_kept or s not in schedule.site_lane for s in sites):
        return
    wide: list[tuple[Var, Access]] = []
    for site in sites:
        lane = schedule.site_lane[site]
        for access in site.accesses:
            across = access.address.coefficient(lane)
            if across not in (0, 1) or lane in _without(access.address, lane).symbols():
                return
            if across:
                wide.append((lane, access))
    if not wide:
        return
    run = min(VECTOR, target.vector_bytes // max(a.buffer.dtype.itemsize for _, a in wide))
    lanes = {schedule.site_lane[s] for s in sites}
    while run > 1 and not (
        all((lane.hi + 1) % (schedule.threads * run) == 0 for lane in lanes)
        and all(_fits(run, lane, [access]) for lane, access in wide)
    ):
        run //= 2
    if run > 1:
        schedule.side_by_side = run
        for site in sites:
            schedule.split[site] = math.lcm(schedule.split.get(site, 1), run)


def _fits(lanes: int, lane: Var, wide: Sequence[Access]) -> bool:
    """Whether vectors of `lanes` elements divide the axis and begin where vectors of memory do."""
    if (lane.hi + 1) % lanes:
        return False
    for access in wide:
        rest = _without(access.address, lane)
        if rest.const % lanes or any(c % lanes for _, c in rest.terms):
            return False
    return True


def _without(address: Ix, var: Var) -> Ix:
    return Ix(address.const, tuple((s, c) for s, c in address.terms if s is not var))
