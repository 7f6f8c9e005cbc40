// Runs the blocks of a grid one after another, the threads of a block as fibers that take turns at barriers.
//
// A worker fiber runs the threads of a block in a plain loop. A thread that has to wait keeps its worker, and another
// one goes on with the threads after it: kernels without barriers never switch. The order is the launch's: 0 forward,
// 1 backward, else shuffled by that seed, so that each run can be repeated.
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <utility>
#include <vector>

#include <sys/mman.h>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

struct Index {
    unsigned int x, y, z;
};
// A range of memory that a launch may touch.
struct ShimRange {
    uint64_t address, bytes;
};
// Where the unit's library lies, as its linker knows it. Arrays in shared memory are its zeroed data.
struct ShimImage {
    const char *start, *zeroed, *end;
};
extern "C" {
// What the unit sees as threadIdx, blockIdx, blockDim and gridDim.
struct ShimPlace {
    Index thread, block, threads, blocks;
} shim_place;
alignas(1024) unsigned char shim_dynamic[SHIM_DYNAMIC];  // the dynamic shared memory of the block
}

namespace {

constexpr size_t STACK = 2 << 20;  // a thread may have 512 KiB of its own
constexpr size_t GUARD = 4 << 10;

// What the lanes `mask` of one warp bring to one call.
struct Gather {
    unsigned int warp, mask, arrived, left;  // lanes: those that came, those that have read what others brought
    const char* what;
    int line;
    unsigned long long bits[32];
};

struct Fiber {
    char* stack = nullptr;  // with a guard page below
    size_t size = 0;
    unsigned int thread = 0;
    void* fake = nullptr;  // AddressSanitizer's second stack
#if defined(__x86_64__)
    void* sp = nullptr;
#else
    ucontext_t context;
#endif
};

struct Waiting {
    Fiber* fiber;
    Gather* gather;  // null: at a barrier of the block
    int line;
};

// The block that runs.
struct Block {
    unsigned int number;  // unlike any other of this process, so that nothing of an earlier one is mistaken for its own
    unsigned int threads, started, arrived, round, brought[2];
    int line;  // of the barrier
    unsigned int first;  // the thread that came there first
};

Block block;
Fiber scheduler;
Fiber* self = &scheduler;
std::vector<Fiber*> fibers, idle, ready;
std::vector<Waiting> waiting;
std::vector<Gather*> gathers, spare;  // incomplete ones, and some for re-use
std::vector<unsigned int> turns;  // the threads in the order in which they start
void (*kernel)(void**);
void** arguments;
uint64_t chance;  // 0: no shuffling
bool failed;
char message[2048];

void pause();

// The launch ends here, with this message.
__attribute__((format(printf, 1, 2))) void fail(const char* format, ...) {
    if (!failed) {
        va_list values;
        va_start(values, format);
        int start = snprintf(message, sizeof message, "block (%u, %u, %u), ", shim_place.block.x, shim_place.block.y,
                             shim_place.block.z);
        vsnprintf(message + start, sizeof message - start, format, values);
        va_end(values);
        failed = true;
    }
    if (self != &scheduler) pause();
}

size_t some(size_t count) {
    chance ^= chance << 13, chance ^= chance >> 7, chance ^= chance << 17;
    return chance % count;
}

}  // namespace

#if defined(SHIM_CHECKED)
#include "checks.hpp"
#else
static void check_warp(unsigned int) {}
static void check_block() {}
#endif

namespace {

// fibers

void landed(Fiber* here) {
#if defined(__SANITIZE_ADDRESS__)
    const void* bottom;
    size_t size;
    __sanitizer_finish_switch_fiber(here->fake, &bottom, &size);
    if (here != &scheduler) scheduler.stack = (char*)bottom, scheduler.size = size;
#else
    (void)here;
#endif
}

#if defined(__x86_64__)
extern "C" void shim_switch(void** from, void* to);
asm(R"(
    .text
    .globl shim_switch
    .hidden shim_switch
shim_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");
#endif

void switch_to(Fiber* to) {
    Fiber* from = self;
    self = to;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&from->fake, to->stack, to->size);
#endif
#if defined(__x86_64__)
    shim_switch(&from->sp, to->sp);
#else
    swapcontext(&from->context, &to->context);
#endif
    landed(from);
}

void set_thread(unsigned int number) {
    self->thread = number;
    shim_place.thread.x = number % shim_place.threads.x;
    number /= shim_place.threads.x;
    shim_place.thread.y = number % shim_place.threads.y;
    shim_place.thread.z = number / shim_place.threads.y;
}

// Let others run until the scheduler comes back to this fiber; after a failure it never does.
void pause() {
    switch_to(&scheduler);
    set_thread(self->thread);
}

void work() {
    landed(self);
    for (;;) {
        while (block.started < block.threads) {
            set_thread(turns[block.started++]);
            kernel(arguments);
        }
        idle.push_back(self);
        switch_to(&scheduler);
    }
}

void prepare(Fiber* fiber) {
#if defined(__x86_64__)
    void** top = (void**)(fiber->stack + fiber->size);
    memset(top - 8, 0, 8 * sizeof(void*));
    top[-2] = (void*)work;  // where `shim_switch` returns to, after six registers
    fiber->sp = top - 8;
#else
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = fiber->stack;
    fiber->context.uc_stack.ss_size = fiber->size;
    makecontext(&fiber->context, work, 0);
#endif
    fiber->fake = nullptr;
}

Fiber* worker() {
    if (idle.empty()) {
        void* memory = mmap(nullptr, GUARD + STACK, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) {
            fail("no memory for the stack of fiber %zu", fibers.size());
            return nullptr;
        }
        mprotect(memory, GUARD, PROT_NONE);
        Fiber* fiber = new Fiber;
        fiber->stack = (char*)memory + GUARD;
        fiber->size = STACK;
        prepare(fiber);
        fibers.push_back(fiber);
        return fiber;
    }
    Fiber* fiber = idle.back();
    idle.pop_back();
    return fiber;
}

void release(Gather* gather) {
    size_t kept = 0;
    for (Waiting& one : waiting) {
        if (one.gather == gather) ready.push_back(one.fiber);
        else waiting[kept++] = one;
    }
    waiting.resize(kept);
}

// Threads wait, and no thread is left that could let them go on.
void stuck() {
    unsigned int at_barrier = 0;
    for (Waiting& one : waiting) at_barrier += !one.gather;
    unsigned int ended = block.threads - waiting.size();
    Waiting& one = waiting[0];
    if (at_barrier == waiting.size())
        fail("divergent barrier: thread %u and %u more wait at the barrier of line %d, %u threads have ended", block.first,
             at_barrier - 1, block.line, ended);
    else if (at_barrier)
        fail("divergent barrier: %u threads wait at the barrier of line %d, %zu at warp operations, %u have ended",
             at_barrier, block.line, waiting.size() - at_barrier, ended);
    else
        fail("divergent warp: thread %u waits at %s of line %d for lanes %#x, but only %#x came; %u threads have ended",
             one.fiber->thread, one.gather->what, one.line, one.gather->mask, one.gather->arrived, ended);
}

void run_block() {
    block.number++;
    block.started = block.arrived = block.round = block.brought[0] = block.brought[1] = 0;
    check_block();
    if (chance)
        for (size_t i = turns.size(); i > 1; --i) std::swap(turns[i - 1], turns[some(i)]);
    size_t head = 0;
    while (!failed) {
        Fiber* next;
        if (head < ready.size()) {
            if (chance) std::swap(ready[head], ready[head + some(ready.size() - head)]);
            next = ready[head++];
        } else if (block.started < block.threads) {
            next = worker();
        } else {
            break;
        }
        if (head == ready.size()) ready.clear(), head = 0;
        if (next) switch_to(next);
    }
    if (!failed && !waiting.empty()) stuck();
}

void start_again() {
    for (Fiber* fiber : fibers) prepare(fiber);
    idle = fibers;
    ready.clear();
    waiting.clear();
    spare.insert(spare.end(), gathers.begin(), gathers.end());
    gathers.clear();
}

}  // namespace

// what the unit calls

extern "C" unsigned int shim_barrier(unsigned int brought, int line) {
    if (!block.arrived) {
        block.line = line;
        block.first = self->thread;
    } else if (line != block.line) {
        fail("divergent barrier: thread %u waits at line %d, thread %u at line %d", block.first, block.line, self->thread,
             line);
    }
    unsigned int round = block.round & 1;
    block.brought[round] += brought;
    if (++block.arrived < block.threads) {
        waiting.push_back({self, nullptr, line});
        pause();
    } else {
        block.arrived = 0;
        block.brought[++block.round & 1] = 0;
        release(nullptr);
    }
    return block.brought[round];
}

// Wait until the lanes of `mask` are here. Who has read what they brought calls `leave`.
static Gather* gather_lanes(const char* what, unsigned int mask, unsigned long long bits, int line) {
    unsigned int warp = self->thread / 32, lane = self->thread % 32, rest = block.threads - 32 * warp;
    unsigned int present = rest >= 32 ? ~0u : (1u << rest) - 1;
    if (!(mask >> lane & 1))
        fail("thread %u, lane %u, is not in the mask %#x of its own %s at line %d", self->thread, lane, mask, what, line);
    size_t at = 0;
    while (at < gathers.size() && (gathers[at]->warp != warp || !(gathers[at]->mask & mask))) ++at;
    if (at == gathers.size()) {
        if (spare.empty()) spare.push_back(new Gather);
        *spare.back() = {warp, mask, 0, 0, what, line, {}};
        gathers.push_back(spare.back());
        spare.pop_back();
    }
    Gather* gather = gathers[at];
    if (gather->mask != mask || gather->line != line || strcmp(gather->what, what))
        fail("divergent warp: thread %u comes to %s of line %d with lanes %#x, while others of its warp wait at %s of line "
             "%d with lanes %#x", self->thread, what, line, mask, gather->what, gather->line, gather->mask);
    gather->bits[lane] = bits;
    gather->arrived |= 1u << lane;
    if (gather->arrived != (mask & present)) {
        waiting.push_back({self, gather, line});
        pause();
    } else {
        gathers.erase(gathers.begin() + at);
        if (!strcmp(what, "__syncwarp")) check_warp(warp);
        release(gather);
    }
    return gather;
}

static void leave(Gather* gather) {
    gather->left |= 1u << self->thread % 32;
    if (gather->left == gather->arrived) spare.push_back(gather);
}

extern "C" unsigned long long shim_exchange(const char* what, unsigned int mask, unsigned long long bits,
                                            unsigned int source, int line) {
    Gather* gather = gather_lanes(what, mask, bits, line);
    if (source >= 32 || !(gather->arrived >> source & 1))
        fail("thread %u reads lane %u at %s of line %d, where only lanes %#x take part", self->thread, source, what, line,
             gather->arrived);
    unsigned long long found = gather->bits[source];
    leave(gather);
    return found;
}

extern "C" unsigned int shim_ballot(const char* what, unsigned int mask, unsigned int brought, int line) {
    Gather* gather = gather_lanes(what, mask, brought, line);
    unsigned int found = 0;
    for (unsigned int lane = 0; lane < 32; ++lane)
        if (gather->arrived >> lane & gather->bits[lane]) found |= 1u << lane;
    leave(gather);
    return found;
}

extern "C" void shim_trap(int line) {
    fail("thread %u traps at line %d", self->thread, line);
    __builtin_unreachable();
}

#if !defined(SHIM_CHECKED)
extern "C" void shim_atomic(const void*, unsigned int) {}
#endif

// what the test's side calls

// Run `entry` over a grid; 0, or 1 with the reason in `text`. `ranges`, `image`, and that a block has `shared` bytes of
// dynamic shared memory, matter to the checks only.
extern "C" int shim_launch(void (*entry)(void**), void** values, const Index* blocks, const Index* threads,
                           unsigned int order, const ShimRange* ranges, size_t count, const ShimImage* image,
                           size_t shared, char* text, size_t room) {
    kernel = entry;
    arguments = values;
    failed = false;
    chance = order > 1 ? order * 0x9e3779b97f4a7c15ull : 0;
    shim_place.threads = *threads;
    shim_place.blocks = *blocks;
    block.threads = threads->x * threads->y * threads->z;
    turns.resize(block.threads);
    for (unsigned int i = 0; i < block.threads; ++i) turns[i] = order == 1 ? block.threads - 1 - i : i;
#if defined(SHIM_CHECKED)
    check_begin(ranges, count, *image, shared);
#else
    (void)ranges, (void)count, (void)image, (void)shared;
#endif
    uint64_t all = (uint64_t)blocks->x * blocks->y * blocks->z;
    for (uint64_t i = 0; i < all && !failed; ++i) {
        uint64_t number = order ? all - 1 - i : i;
        shim_place.block = {(unsigned int)(number % blocks->x), (unsigned int)(number / blocks->x % blocks->y),
                            (unsigned int)(number / blocks->x / blocks->y)};
        run_block();
    }
#if defined(SHIM_CHECKED)
    check_end();
#endif
    if (!failed) return 0;
    start_again();
    snprintf(text, room, "%s", message);
    return 1;
}
