// What a checked unit does with memory: each access is in bounds and aligned, shared memory is written before it is
// read, and no two threads touch the same byte, one of them writing, without a barrier between them.
//
// The unit is compiled with -fsanitize=thread and -fsanitize=undefined, but linked without their libraries: the calls
// that the compiler puts before each access, and where behaviour is not defined, come here. Which threads there are and
// where they meet is known exactly, so what is found does not hang on luck.
#pragma once

namespace {

constexpr unsigned int MANY = 0xffff;  // threads

// The last write and reads of one byte.
struct Cell {
    uint32_t write_block, write_round, write_sync, read_block, read_round, read_sync;
    uint16_t writer, reader;  // threads; the reader may be MANY
    bool atomic, elsewhere;  // how it was written; whether blocks before `read_block` read it
};

struct Range {
    uint64_t address, bytes;
    Cell* cells;
};

std::vector<Range> ranges;  // the launch's memory, then the shared memory of a block: static, dynamic
size_t global_ranges;
size_t last;  // the range that was hit last
uint32_t first_block;  // of the launch
uint32_t syncs[32];  // of the warps of the block
ShimImage image;

Cell* make_cells(uint64_t bytes) {
    void* memory = mmap(nullptr, bytes * sizeof(Cell) + 1, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? nullptr : (Cell*)memory;
}

void check_end() {
    for (Range& range : ranges) munmap(range.cells, range.bytes * sizeof(Cell) + 1);
    ranges.clear();
}

void check_block() { memset(syncs, 0, sizeof syncs); }
void check_warp(unsigned int warp) { syncs[warp]++; }

// Where in the unit: shim.py turns the offset into a line, as it turns {2} into the name of the third range.
unsigned long offset_of(void* caller) { return (unsigned long)((char*)caller - image.start) - 1; }

// The name of a range: {2} for the third of the launch.
const char* name_of(const Range& range) {
    static char name[32];
    size_t place = &range - ranges.data();
    snprintf(name, sizeof name, "{%zu}", place);
    return place < global_ranges ? name : place == global_ranges ? "shared memory" : "dynamic shared memory";
}

void conflict(const Range& range, uint64_t at, const char* what, uint32_t number, unsigned int thread, const char* other,
              void* caller) {
    char who[64] = "several threads";
    if (thread != MANY) snprintf(who, sizeof who, "thread %u", thread);
    bool is_ours = number == block.number;
    fail("race: thread %u %s byte %llu of %s, which %s of %s block %s%s [+%#lx]", self->thread, what, (unsigned long long)at,
         name_of(range), who, is_ours ? "this" : "another", other, is_ours ? ", with no barrier between" : "",
         offset_of(caller));
}

// Whether what `thread` did in block `number` comes before what this thread does now. `from`: the first block whose
// memory this is, of the launch or, for shared memory, the block itself.
bool before(uint32_t number, uint32_t round, uint32_t sync, unsigned int thread, uint32_t from) {
    if (number < from) return true;
    if (number != block.number) return false;
    if (round < block.round || thread == self->thread) return true;
    return thread != MANY && thread / 32 == self->thread / 32 && sync < syncs[thread / 32];
}

void touch(Range& range, uint64_t at, bool writes, bool atomic, void* caller) {
    Cell& cell = range.cells[at];
    const char* what = atomic ? "changes" : writes ? "writes" : "reads";
    bool is_shared = (size_t)(&range - ranges.data()) >= global_ranges;
    uint32_t from = is_shared ? block.number : first_block;
    if (!(atomic && cell.atomic) && !before(cell.write_block, cell.write_round, cell.write_sync, cell.writer, from))
        return conflict(range, at, what, cell.write_block, cell.writer, cell.atomic ? "changed" : "wrote", caller);
    if (is_shared && !writes && cell.write_block != block.number)
        return fail("thread %u reads shared memory that no thread of its block wrote [+%#lx]", self->thread,
                    offset_of(caller));
    uint32_t sync = syncs[self->thread / 32];
    bool read_before = before(cell.read_block, cell.read_round, cell.read_sync, cell.reader, from);
    if (writes) {
        bool elsewhere = cell.elsewhere && cell.read_block >= from;
        if (!read_before || elsewhere) {
            uint32_t number = elsewhere ? 0 : cell.read_block;
            return conflict(range, at, what, number, elsewhere ? MANY : cell.reader, "read", caller);
        }
        cell.write_block = block.number, cell.write_round = block.round, cell.write_sync = sync;
        cell.writer = self->thread, cell.atomic = atomic;
        return;
    }
    bool is_ours = cell.read_block == block.number;
    cell.elsewhere = cell.read_block >= from && (!is_ours || cell.elsewhere);
    cell.reader = is_ours && !read_before ? MANY : self->thread;
    cell.read_block = block.number, cell.read_round = block.round, cell.read_sync = sync;
}

void outside(uint64_t address, unsigned int bytes, bool writes, void* caller) {
    const Range* nearest = nullptr;
    uint64_t least = 1 << 20;
    for (const Range& range : ranges) {
        uint64_t end = range.address + range.bytes;
        uint64_t away = address < range.address ? range.address - address : address < end ? 0 : address - end;
        if (away < least) least = away, nearest = &range;
    }
    const char* what = writes ? "writes" : "reads";
    if (nearest)
        fail("out of bounds: thread %u %s %u bytes at byte %lld of %s, which has %llu bytes [+%#lx]", self->thread, what,
             bytes, (long long)(address - nearest->address), name_of(*nearest), (unsigned long long)nearest->bytes,
             offset_of(caller));
    else
        fail("out of bounds: thread %u %s %u bytes at %#llx, which is nowhere near its memory [+%#lx]", self->thread, what,
             bytes, (unsigned long long)address, offset_of(caller));
}

void access(const void* pointer, unsigned int bytes, bool writes, void* caller, bool atomic = false, bool aligned = true) {
    uint64_t address = (uint64_t)pointer;
    if (address - (uint64_t)self->stack < self->size) return;  // the thread's own
    if (address - (uint64_t)&shim_place < sizeof shim_place) return;
    if (aligned && address % bytes)
        return fail("misaligned: thread %u %s %u bytes at %#llx [+%#lx]", self->thread, writes ? "writes" : "reads", bytes,
                    (unsigned long long)address, offset_of(caller));
    for (size_t k = 0; k < ranges.size(); ++k) {
        Range& range = ranges[(last + k) % ranges.size()];
        uint64_t at = address - range.address;
        if (at >= range.bytes) continue;
        if (at + bytes > range.bytes) break;
        last = &range - ranges.data();
        for (unsigned int i = 0; i < bytes && !failed; ++i) touch(range, at + i, writes, atomic, caller);
        return;
    }
    bool is_constant = address - (uint64_t)image.start < (uint64_t)(image.zeroed - image.start);
    if (writes || !is_constant) outside(address, bytes, writes, caller);
}

void undefined(const char* what, const void* data) {
    struct Location {
        const char* file;
        uint32_t line, column;
    };
    fail("undefined behaviour: thread %u, %s [line %u]", self->thread, what, ((const Location*)data)->line);
}

}  // namespace

static void check_begin(const ShimRange* given, size_t count, const ShimImage& unit, size_t shared) {
    image = unit;
    global_ranges = count;
    last = 0;
    first_block = block.number + 1;
    std::vector<ShimRange> all(given, given + count);
    all.push_back({(uint64_t)unit.zeroed, (uint64_t)(unit.end - unit.zeroed)});
    all.push_back({(uint64_t)shim_dynamic, shared});
    for (const ShimRange& range : all) {
        ranges.push_back({range.address, range.bytes, make_cells(range.bytes)});
        if (!ranges.back().cells) fail("no memory to check %llu bytes with", (unsigned long long)range.bytes);
    }
}

#define CALLER __builtin_return_address(0)
#define ACCESSES(n)                                                                                       \
    void __tsan_read##n(void* p) { access(p, n, false, CALLER); }                                         \
    void __tsan_write##n(void* p) { access(p, n, true, CALLER); }                                         \
    void __tsan_unaligned_read##n(void* p) { access(p, n, false, CALLER, false, false); }                 \
    void __tsan_unaligned_write##n(void* p) { access(p, n, true, CALLER, false, false); }                 \
    void __tsan_volatile_read##n(void* p) { access(p, n, false, CALLER); }                                \
    void __tsan_volatile_write##n(void* p) { access(p, n, true, CALLER); }

extern "C" {
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)
void __tsan_read_range(void* p, unsigned long n) { access(p, n, false, CALLER, false, false); }
void __tsan_write_range(void* p, unsigned long n) { access(p, n, true, CALLER, false, false); }
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}
void shim_atomic(const void* p, unsigned int n) { access(p, n, true, CALLER, true); }

#define UNDEFINED(name, what) void __ubsan_handle_##name(void* data) { undefined(what, data); }
UNDEFINED(add_overflow, "a signed sum overflows")
UNDEFINED(sub_overflow, "a signed difference overflows")
UNDEFINED(mul_overflow, "a signed product overflows")
UNDEFINED(negate_overflow, "a negated number overflows")
UNDEFINED(divrem_overflow, "a division by 0, or a quotient that overflows")
UNDEFINED(shift_out_of_bounds, "a shift by a negative number or by too much, or of a negative number")
UNDEFINED(out_of_bounds, "an index is outside of its array")
UNDEFINED(type_mismatch_v1, "a pointer is null, misaligned or has no object of its type behind it")
UNDEFINED(load_invalid_value, "a bool is neither 0 nor 1")
UNDEFINED(pointer_overflow, "a pointer overflows")
UNDEFINED(builtin_unreachable, "code is reached that should not be")
UNDEFINED(missing_return, "a function ends without its result")
UNDEFINED(vla_bound_not_positive, "an array has no positive size")
UNDEFINED(invalid_builtin, "a count of zeros of 0")
UNDEFINED(nonnull_arg, "a null argument")
}
