// What the devices of `libcuda.cpp` are: memory, streams of work that is done late, kernels of the shim.
#pragma once

#define __CUDA_API_VERSION_INTERNAL  // each function by the name that it has in the library
#include <cuda.h>
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <vector>

namespace {

constexpr int DEVICES = 2, VERSION = 13000;
constexpr size_t MEMORY = 2ull << 30, ALIGNMENT = 512, SHARED = 227 << 10;
constexpr double AT_ONCE = 0.25;  // how often a call lets something run, with an order

using Work = std::function<CUresult()>;

// One record of an event, on this stream; whoever waits for it does so also when the event is recorded again.
struct Record {
    struct Stream* stream;
    bool done = false;
    double at = 0;
};

struct Event {
    bool timing;
    std::shared_ptr<Record> last;
};

struct Module {
    void* library;
    void* launch;  // `shim_launch`
};

struct Function {
    Module* module;
    std::string name;
    void (*entry)(void**);
    unsigned int parameters, threads, dynamic = 48 << 10;
};

struct Index {
    unsigned int x, y, z;
};

struct Node {
    Work work;
    bool is_kernel = false;
    CUDA_KERNEL_NODE_PARAMS parameters{};
    std::vector<uint64_t> values;
    std::vector<void*> places;
};

struct Graph {
    std::vector<Node*> nodes;
};

struct Executable {
    std::map<Node*, Node*> own;  // its copies of the graph's nodes
    std::vector<Node*> nodes;    // those copies, in order
};

struct Item {
    Work work;
    std::shared_ptr<Record> awaited;
};

struct Context {
    int device;
};

struct Stream {
    Context* context;
    std::deque<Item> items;
    Graph* captured = nullptr;
};

struct Device {
    Context context;
    Stream stream;  // the default one
    std::set<Stream*> streams;
    char* start = nullptr;
    std::map<char*, size_t> used;
};

Device devices[DEVICES];
std::recursive_mutex lock;
std::map<char*, size_t> pinned;
thread_local std::vector<Context*> contexts;
CUresult broken = CUDA_SUCCESS;
std::mt19937_64 chance;
bool ordered;
int running;

#define LOCKED std::lock_guard<std::recursive_mutex> held(lock)
#define TRY(call)                                  \
    if (CUresult code = (call); code != CUDA_SUCCESS) return code

CUresult wrong(const char* format, ...) {
    va_list values;
    va_start(values, format);
    fputs("libcuda of the tests: ", stderr);
    vfprintf(stderr, format, values);
    fputc('\n', stderr);
    va_end(values);
    return CUDA_ERROR_INVALID_VALUE;
}

Context* current() { return contexts.empty() ? nullptr : contexts.back(); }
Device& device_of(Context* context) { return devices[context->device]; }

// Every call but a few needs a context, and fails once something went wrong on a device.
CUresult ready() {
    if (broken) return broken;
    return current() ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

// The allocation that holds these bytes, of whichever device.
Device* holder(CUdeviceptr address, size_t bytes) {
    for (Device& device : devices) {
        auto next = device.used.upper_bound((char*)address);
        if (next == device.used.begin()) continue;
        --next;
        if ((char*)address + bytes <= next->first + next->second) return &device;
    }
    return nullptr;
}

bool is_pinned(const void* address, size_t bytes) {
    auto next = pinned.upper_bound((char*)address);
    if (next == pinned.begin()) return false;
    --next;
    return (char*)address + bytes <= next->first + next->second;
}

void open_memory(bool open) {
    for (Device& device : devices)
        if (device.start) mprotect(device.start, MEMORY, open ? PROT_READ | PROT_WRITE : PROT_NONE);
}

CUresult run(const Work& work) {
    if (!running++) open_memory(true);
    CUresult code = work();
    if (!--running) open_memory(false);
    if (code) broken = code;
    return code;
}

// Do the first thing of a stream if nothing is in its way.
bool advance(Stream* stream) {
    if (stream->items.empty() || broken) return false;
    Item& item = stream->items.front();
    if (item.awaited && !item.awaited->done) return false;
    Work work = std::move(item.work);
    stream->items.pop_front();
    if (work) run(work);
    return true;
}

CUresult drain(Stream* stream) {
    while (!stream->items.empty() && !broken) {
        if (advance(stream)) continue;
        std::shared_ptr<Record> record = stream->items.front().awaited;
        while (!record->done) {
            if (record->stream->items.empty()) return wrong("a stream waits for an event that never comes");
            if (!advance(record->stream)) TRY(drain(record->stream));
        }
    }
    return broken;
}

CUresult drain_all() {
    for (Device& device : devices) {
        TRY(drain(&device.stream));
        for (Stream* stream : device.streams) TRY(drain(stream));
    }
    return CUDA_SUCCESS;
}

// Let some of what was put on streams happen.
void perhaps() {
    while (ordered && !broken && chance() % 1000 < 1000 * AT_ONCE) {
        std::vector<Stream*> every;
        for (Device& device : devices) {
            if (!device.stream.items.empty()) every.push_back(&device.stream);
            for (Stream* stream : device.streams)
                if (!stream->items.empty()) every.push_back(stream);
        }
        if (every.empty()) return;
        Stream* stream = every[chance() % every.size()];
        for (uint64_t left = 1 + chance() % 4; left && advance(stream); --left) {}
    }
}

Stream* stream_of(CUstream given) {
    if (!given) return &device_of(current()).stream;
    for (Device& device : devices)
        if (device.streams.count((Stream*)given)) return (Stream*)given;
    return nullptr;
}

CUresult put(CUstream given, Work work) {
    Stream* stream = stream_of(given);
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    if (stream->context != current())
        return wrong("a stream of device %d is used in the context of device %d", stream->context->device,
                     current()->device);
    if (stream->captured) {
        stream->captured->nodes.push_back(new Node{std::move(work)});
    } else {
        stream->items.push_back({std::move(work)});
        perhaps();
    }
    return CUDA_SUCCESS;
}

CUresult launch(Function* function, Index blocks, Index threads, unsigned int shared, const std::vector<uint64_t>& values) {
    using Launch = int (*)(void (*)(void**), void**, const Index*, const Index*, unsigned int, const void*, size_t,
                           const void*, size_t, char*, size_t);
    for (uint64_t value : values)
        if (value && !holder(value, 0)) {
            wrong("%s gets %#lx, which is no memory of a device", function->name.c_str(), (unsigned long)value);
            return CUDA_ERROR_ILLEGAL_ADDRESS;
        }
    char text[4096];
    std::vector<void*> given(values.size());
    for (size_t i = 0; i < values.size(); ++i) given[i] = (void*)values[i];
    unsigned int order = ordered ? chance() % 8 : 0;
    if (!((Launch)function->module->launch)(function->entry, given.data(), &blocks, &threads, order, nullptr, 0,
                                            dlsym(function->module->library, "shim_image"), shared, text, sizeof text))
        return CUDA_SUCCESS;
    wrong("%s: %s", function->name.c_str(), text);
    return CUDA_ERROR_LAUNCH_FAILED;
}

// The words that a kernel gets, from either form of its parameters.
CUresult words(Function* function, void** each, void** extra, std::vector<uint64_t>& values) {
    values.resize(function->parameters);
    if (each) {
        for (unsigned int i = 0; i < function->parameters; ++i) memcpy(&values[i], each[i], 8);
        return CUDA_SUCCESS;
    }
    void* buffer = nullptr;
    size_t size = 0;
    for (; extra && *extra != CU_LAUNCH_PARAM_END; extra += 2) {
        if (*extra == CU_LAUNCH_PARAM_BUFFER_POINTER) buffer = extra[1];
        if (*extra == CU_LAUNCH_PARAM_BUFFER_SIZE) size = *(size_t*)extra[1];
    }
    if (size != 8 * values.size())
        return wrong("%s has %u parameters, got %zu bytes", function->name.c_str(), function->parameters, size);
    if (size) memcpy(values.data(), buffer, size);
    return CUDA_SUCCESS;
}

void set_node(Node* node, const CUDA_KERNEL_NODE_PARAMS& parameters, const std::vector<uint64_t>& values) {
    node->is_kernel = true;
    node->values = values;
    node->places.clear();
    for (uint64_t& value : node->values) node->places.push_back(&value);
    node->parameters = parameters;
    node->parameters.kernelParams = node->places.data();
    node->parameters.extra = nullptr;
    Function* function = (Function*)parameters.func;
    Index blocks{parameters.gridDimX, parameters.gridDimY, parameters.gridDimZ};
    Index threads{parameters.blockDimX, parameters.blockDimY, parameters.blockDimZ};
    unsigned int shared = parameters.sharedMemBytes;
    node->work = [=] { return launch(function, blocks, threads, shared, values); };
}

}  // namespace
