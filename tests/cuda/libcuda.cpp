// A libcuda.so.1 whose devices are the host, for PyCUDA and cuda-bindings themselves to be tested without a GPU.
//
// A module is a library of the host that `Unit` compiled from CUDA C; its kernels run in the shim. What is put on a
// stream is done late: when somebody waits for it, or, with GRAPHC_LIBCUDA_ORDER=n (a seed), at random times before, the
// streams in a random order as far as events allow. Memory of a device cannot be touched by the host: only while
// something runs there is it mapped. Fresh and freed memory is full of 0xFF bytes. Page-locked memory is read and written
// when a copy is done, other memory of the host before the call returns, as the driver does.
#include "libcuda.hpp"

extern "C" {

CUresult cuInit(unsigned int) {
    LOCKED;
    if (const char* order = getenv("GRAPHC_LIBCUDA_ORDER")) ordered = true, chance.seed(strtoull(order, nullptr, 10));
    for (int i = 0; i < DEVICES; ++i) {
        devices[i].context = {i};
        devices[i].stream.context = &devices[i].context;
    }
    return CUDA_SUCCESS;
}
CUresult cuDriverGetVersion(int* version) { return *version = VERSION, CUDA_SUCCESS; }
CUresult cuDeviceGetCount(int* count) { return *count = DEVICES, CUDA_SUCCESS; }
CUresult cuDeviceGet(CUdevice* device, int number) {
    if (number < 0 || number >= DEVICES) return CUDA_ERROR_INVALID_DEVICE;
    return *device = number, CUDA_SUCCESS;
}
CUresult cuDeviceGetName(char* name, int room, CUdevice) { return snprintf(name, room, "host"), CUDA_SUCCESS; }
CUresult cuDeviceTotalMem_v2(size_t* bytes, CUdevice) { return *bytes = MEMORY, CUDA_SUCCESS; }
CUresult cuDeviceComputeCapability(int* major, int* minor, CUdevice) { return *major = 9, *minor = 0, CUDA_SUCCESS; }
CUresult cuDeviceGetPCIBusId(char* text, int room, CUdevice device) {
    return snprintf(text, room, "0000:%02x:00.0", device), CUDA_SUCCESS;
}
CUresult cuDeviceCanAccessPeer(int* can, CUdevice, CUdevice) { return *can = 0, CUDA_SUCCESS; }
CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice) {
    switch ((int)attribute) {
        case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = 4; break;
        case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: *value = SHARED; break;
        case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR: *value = 228 << 10; break;
        case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR: *value = 65536; break;
        case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR: *value = 2048; break;
        case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE: *value = 50 << 20; break;
        case CU_DEVICE_ATTRIBUTE_CLOCK_RATE: *value = 1000000; break;
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = 9; break;
        case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING: *value = 1; break;
        default: *value = 0;
    }
    return CUDA_SUCCESS;
}
CUresult cuGetErrorString(CUresult code, const char** text) {
    static const std::map<int, const char*> texts = {
        {1, "invalid argument"}, {2, "out of memory"}, {201, "invalid device context"},
        {400, "invalid resource handle"}, {500, "named symbol not found"}, {600, "device not ready"},
        {700, "an illegal memory access was encountered"}, {719, "unspecified launch failure"},
        {801, "operation not supported"}};
    auto found = texts.find(code);
    *text = found == texts.end() ? nullptr : found->second;
    return found == texts.end() ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}
CUresult cuGetErrorName(CUresult code, const char** text) { return cuGetErrorString(code, text); }

// contexts

CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
    LOCKED;
    if (device < 0 || device >= DEVICES) return CUDA_ERROR_INVALID_DEVICE;
    if (!devices[device].start) {
        void* memory = mmap(nullptr, MEMORY, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) return CUDA_ERROR_OUT_OF_MEMORY;
        devices[device].start = (char*)memory;
    }
    return *context = (CUcontext)&devices[device].context, CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice) { return CUDA_SUCCESS; }
CUresult cuCtxPushCurrent_v2(CUcontext context) { return contexts.push_back((Context*)context), CUDA_SUCCESS; }
CUresult cuCtxPopCurrent_v2(CUcontext* context) {
    if (contexts.empty()) return CUDA_ERROR_INVALID_CONTEXT;
    if (context) *context = (CUcontext)contexts.back();
    return contexts.pop_back(), CUDA_SUCCESS;
}
CUresult cuCtxSetCurrent(CUcontext context) {
    if (!contexts.empty()) contexts.pop_back();
    if (context) contexts.push_back((Context*)context);
    return CUDA_SUCCESS;
}
CUresult cuCtxGetCurrent(CUcontext* context) { return *context = (CUcontext)current(), CUDA_SUCCESS; }
CUresult cuCtxGetDevice(CUdevice* device) {
    TRY(ready());
    return *device = current()->device, CUDA_SUCCESS;
}
CUresult cuCtxGetApiVersion(CUcontext, unsigned int* version) { return *version = VERSION, CUDA_SUCCESS; }
CUresult cuCtxSynchronize() {
    LOCKED;
    TRY(ready());
    Device& device = device_of(current());
    TRY(drain(&device.stream));
    for (Stream* stream : device.streams) TRY(drain(stream));
    return broken;
}

// memory

CUresult cuMemAlloc_v2(CUdeviceptr* address, size_t bytes) {
    LOCKED;
    TRY(ready());
    Device& device = device_of(current());
    size_t size = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    char* at = device.start;
    for (auto& [start, length] : device.used) {
        if ((size_t)(start - at) >= size) break;
        at = start + (length + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }
    if (!bytes || at + size > device.start + MEMORY) return bytes ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_ERROR_INVALID_VALUE;
    device.used[at] = bytes;
    *address = (CUdeviceptr)at;
    return run([=] { return memset(at, 0xFF, size), CUDA_SUCCESS; });
}
CUresult cuMemFree_v2(CUdeviceptr address) {
    LOCKED;
    TRY(ready());
    Device& device = device_of(current());
    auto found = device.used.find((char*)address);
    if (found == device.used.end()) return wrong("%#llx is no memory of the current device", address);
    TRY(drain_all());
    char* at = found->first;
    size_t bytes = found->second;
    device.used.erase(found);
    return run([=] { return memset(at, 0xFF, bytes), CUDA_SUCCESS; });
}
CUresult cuMemGetInfo_v2(size_t* left, size_t* total) {
    LOCKED;
    TRY(ready());
    *left = *total = MEMORY;
    for (auto& [start, bytes] : device_of(current()).used) *left -= bytes;
    return CUDA_SUCCESS;
}
CUresult cuMemHostAlloc(void** address, size_t bytes, unsigned int) {
    LOCKED;
    TRY(ready());
    *address = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    memset(*address, 0xFF, bytes);
    pinned[(char*)*address] = bytes;
    return CUDA_SUCCESS;
}
CUresult cuMemFreeHost(void* address) {
    LOCKED;
    TRY(ready());
    auto found = pinned.find((char*)address);
    if (found == pinned.end()) return wrong("%p is no page-locked memory", address);
    TRY(drain_all());
    memset(address, 0xFF, found->second);
    pinned.erase(found);
    free(address);
    return CUDA_SUCCESS;
}
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr target, const void* host, size_t bytes, CUstream stream) {
    LOCKED;
    TRY(ready());
    if (holder(target, bytes) != &device_of(current())) return wrong("a copy to no memory of the device");
    if (is_pinned(host, bytes))
        return put(stream, [=] { return memcpy((void*)target, host, bytes), CUDA_SUCCESS; });
    std::string copied((const char*)host, bytes);
    return put(stream, [=] { return memcpy((void*)target, copied.data(), bytes), CUDA_SUCCESS; });
}
CUresult cuMemcpyDtoHAsync_v2(void* host, CUdeviceptr source, size_t bytes, CUstream stream) {
    LOCKED;
    TRY(ready());
    if (holder(source, bytes) != &device_of(current())) return wrong("a copy from no memory of the device");
    TRY(put(stream, [=] { return memcpy(host, (void*)source, bytes), CUDA_SUCCESS; }));
    return is_pinned(host, bytes) ? CUDA_SUCCESS : drain(stream_of(stream));
}
CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr target, CUdeviceptr source, size_t bytes, CUstream stream) {
    LOCKED;
    TRY(ready());
    if (!holder(target, bytes) || !holder(source, bytes)) return wrong("a copy of no memory of a device");
    if (target < source + bytes && source < target + bytes) return wrong("a copy overlaps its source");
    return put(stream, [=] { return memcpy((void*)target, (void*)source, bytes), CUDA_SUCCESS; });
}
CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D* copy, CUstream stream) {
    LOCKED;
    TRY(ready());
    const CUDA_MEMCPY2D c = *copy;
    if (c.srcMemoryType != CU_MEMORYTYPE_DEVICE || c.dstMemoryType != CU_MEMORYTYPE_DEVICE)
        return wrong("rows that are not on a device");
    if (c.srcXInBytes || c.srcY || c.dstXInBytes || c.dstY) return wrong("rows that begin elsewhere");
    if (c.WidthInBytes > c.srcPitch || c.WidthInBytes > c.dstPitch || c.srcPitch >> 31 || c.dstPitch >> 31)
        return wrong("rows with a wrong pitch");
    const size_t target = (c.Height - 1) * c.dstPitch + c.WidthInBytes;
    const size_t source = (c.Height - 1) * c.srcPitch + c.WidthInBytes;
    if (!holder(c.dstDevice, target) || !holder(c.srcDevice, source)) return wrong("rows of no memory of a device");
    return put(stream, [=] {
        for (size_t row = 0; row < c.Height; row++)
            memcpy((char*)c.dstDevice + row * c.dstPitch, (char*)c.srcDevice + row * c.srcPitch, c.WidthInBytes);
        return CUDA_SUCCESS;
    });
}
CUresult cuMemcpyPeerAsync(CUdeviceptr target, CUcontext to, CUdeviceptr source, CUcontext from, size_t bytes,
                           CUstream stream) {
    LOCKED;
    TRY(ready());
    if (holder(target, bytes) != &device_of((Context*)to) || holder(source, bytes) != &device_of((Context*)from))
        return wrong("a copy between devices of memory that is not theirs");
    return put(stream, [=] { return memcpy((void*)target, (void*)source, bytes), CUDA_SUCCESS; });
}
CUresult cuMemsetD8Async(CUdeviceptr target, unsigned char value, size_t bytes, CUstream stream) {
    LOCKED;
    TRY(ready());
    if (holder(target, bytes) != &device_of(current())) return wrong("no memory of the device is to be filled");
    return put(stream, [=] { return memset((void*)target, value, bytes), CUDA_SUCCESS; });
}

// streams and events

CUresult cuStreamCreate(CUstream* stream, unsigned int) {
    LOCKED;
    TRY(ready());
    Stream* made = new Stream{current(), {}, nullptr};
    device_of(current()).streams.insert(made);
    return *stream = (CUstream)made, CUDA_SUCCESS;
}
CUresult cuStreamDestroy_v2(CUstream stream) {
    LOCKED;
    TRY(ready());
    TRY(drain((Stream*)stream));
    for (Device& device : devices) device.streams.erase((Stream*)stream);
    return CUDA_SUCCESS;
}
CUresult cuStreamQuery(CUstream given) {
    LOCKED;
    TRY(ready());
    Stream* stream = stream_of(given);
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    // Who asks again and again gets there.
    advance(stream);
    if (broken) return broken;
    return stream->items.empty() ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}
CUresult cuStreamSynchronize(CUstream given) {
    LOCKED;
    TRY(ready());
    Stream* stream = stream_of(given);
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    if (stream->captured) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    return drain(stream);
}
CUresult cuStreamWaitEvent(CUstream given, CUevent event, unsigned int) {
    LOCKED;
    TRY(ready());
    Stream* stream = stream_of(given);
    if (!stream || stream->captured) return CUDA_ERROR_INVALID_HANDLE;
    if (((Event*)event)->last) stream->items.push_back({nullptr, ((Event*)event)->last});
    perhaps();
    return CUDA_SUCCESS;
}
CUresult cuEventCreate(CUevent* event, unsigned int flags) {
    LOCKED;
    TRY(ready());
    return *event = (CUevent) new Event{!(flags & CU_EVENT_DISABLE_TIMING), nullptr}, CUDA_SUCCESS;
}
CUresult cuEventDestroy_v2(CUevent) { return CUDA_SUCCESS; }
CUresult cuEventRecord(CUevent given, CUstream stream) {
    LOCKED;
    TRY(ready());
    auto record = std::make_shared<Record>(Record{stream_of(stream)});
    ((Event*)given)->last = record;
    return put(stream, [=] {
        record->at = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
        record->done = true;
        return CUDA_SUCCESS;
    });
}
CUresult cuEventQuery(CUevent given) {
    LOCKED;
    TRY(ready());
    Record* record = ((Event*)given)->last.get();
    if (record && !record->done) advance(record->stream);
    if (broken) return broken;
    return record && !record->done ? CUDA_ERROR_NOT_READY : CUDA_SUCCESS;
}
CUresult cuEventSynchronize(CUevent given) {
    LOCKED;
    TRY(ready());
    std::shared_ptr<Record> record = ((Event*)given)->last;
    while (record && !record->done)
        if (!advance(record->stream)) TRY(drain(record->stream));
    return broken;
}
CUresult cuEventElapsedTime_v2(float* elapsed, CUevent start, CUevent end) {
    LOCKED;
    Event *a = (Event*)start, *b = (Event*)end;
    if (!a->timing || !b->timing || !a->last || !b->last) return CUDA_ERROR_INVALID_HANDLE;
    if (!a->last->done || !b->last->done) return CUDA_ERROR_NOT_READY;
    return *elapsed = (float)(b->last->at - a->last->at), CUDA_SUCCESS;
}
CUresult cuEventElapsedTime(float* elapsed, CUevent start, CUevent end) {
    return cuEventElapsedTime_v2(elapsed, start, end);
}

// kernels

CUresult cuModuleLoadDataEx(CUmodule* module, const void* image, unsigned int, CUjit_option*, void**) {
    LOCKED;
    TRY(ready());
    const Elf64_Ehdr* header = (const Elf64_Ehdr*)image;
    if (memcmp(header->e_ident, ELFMAG, SELFMAG)) return CUDA_ERROR_INVALID_IMAGE;
    size_t bytes = header->e_shoff + (size_t)header->e_shnum * header->e_shentsize;
    char path[] = "/tmp/graphc-module-XXXXXX";  // of its own: libraries are known by their paths
    int file = mkstemp(path);
    if (file < 0 || write(file, image, bytes) != (ssize_t)bytes) return CUDA_ERROR_OUT_OF_MEMORY;
    close(file);
    void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    unlink(path);
    if (!library) return wrong("%s", dlerror()), CUDA_ERROR_INVALID_IMAGE;
    return *module = (CUmodule) new Module{library, dlsym(library, "shim_launch")}, CUDA_SUCCESS;
}
CUresult cuModuleLoadData(CUmodule* module, const void* image) {
    return cuModuleLoadDataEx(module, image, 0, nullptr, nullptr);
}
CUresult cuModuleUnload(CUmodule) {
    LOCKED;
    TRY(ready());
    return drain_all();
}
CUresult cuModuleGetFunction(CUfunction* function, CUmodule given, const char* name) {
    LOCKED;
    TRY(ready());
    Module* module = (Module*)given;
    void* entry = dlsym(module->library, (std::string("enter_") + name).c_str());
    unsigned int* facts = (unsigned int*)dlsym(module->library, (std::string("facts_") + name).c_str());
    if (!entry || !facts) return CUDA_ERROR_NOT_FOUND;
    unsigned int threads = facts[1] ? facts[1] : 1024;
    return *function = (CUfunction) new Function{module, name, (void (*)(void**))entry, facts[0], threads}, CUDA_SUCCESS;
}
CUresult cuFuncGetAttribute(int* value, CUfunction_attribute attribute, CUfunction function) {
    *value = attribute == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? (int)((Function*)function)->threads : 0;
    return CUDA_SUCCESS;
}
CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) {
    if (attribute == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) ((Function*)function)->dynamic = value;
    return CUDA_SUCCESS;
}
CUresult cuLaunchKernel(CUfunction given, unsigned int gx, unsigned int gy, unsigned int gz, unsigned int bx,
                        unsigned int by, unsigned int bz, unsigned int shared, CUstream stream, void** each, void** extra) {
    LOCKED;
    TRY(ready());
    Function* function = (Function*)given;
    if (shared > function->dynamic || bx * by * bz > function->threads || !gx)
        return wrong("%s cannot have %u x %u threads and %u bytes", function->name.c_str(), gx, bx, shared);
    std::vector<uint64_t> values;
    TRY(words(function, each, extra, values));
    Index blocks{gx, gy, gz}, threads{bx, by, bz};
    Stream* queue = stream_of(stream);
    TRY(put(stream, [=] { return launch(function, blocks, threads, shared, values); }));
    if (queue->captured) {
        CUDA_KERNEL_NODE_PARAMS parameters{given, gx, gy, gz, bx, by, bz, shared, nullptr, nullptr, nullptr, nullptr};
        set_node(queue->captured->nodes.back(), parameters, values);
    }
    return CUDA_SUCCESS;
}

// graphs

CUresult cuStreamBeginCapture_v2(CUstream given, CUstreamCaptureMode) {
    LOCKED;
    TRY(ready());
    Stream* stream = stream_of(given);
    if (!given || !stream || stream->captured) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    return stream->captured = new Graph, CUDA_SUCCESS;
}
CUresult cuStreamEndCapture(CUstream given, CUgraph* graph) {
    LOCKED;
    TRY(ready());
    Stream* stream = stream_of(given);
    if (!stream || !stream->captured) return CUDA_ERROR_ILLEGAL_STATE;
    *graph = (CUgraph)stream->captured;
    return stream->captured = nullptr, CUDA_SUCCESS;
}
CUresult cuGraphInstantiateWithFlags(CUgraphExec* executable, CUgraph graph, unsigned long long) {
    LOCKED;
    TRY(ready());
    Executable* made = new Executable;
    for (Node* node : ((Graph*)graph)->nodes) {
        Node* copy = new Node{node->work};
        if (node->is_kernel) set_node(copy, node->parameters, node->values);
        made->nodes.push_back(made->own[node] = copy);
    }
    return *executable = (CUgraphExec)made, CUDA_SUCCESS;
}
CUresult cuGraphGetNodes(CUgraph graph, CUgraphNode* nodes, size_t* count) {
    std::vector<Node*>& every = ((Graph*)graph)->nodes;
    if (nodes)
        for (size_t i = 0; i < *count; ++i) nodes[i] = i < every.size() ? (CUgraphNode)every[i] : nullptr;
    return *count = every.size(), CUDA_SUCCESS;
}
CUresult cuGraphGetEdges_v2(CUgraph graph, CUgraphNode* from, CUgraphNode* to, CUgraphEdgeData* data, size_t* count) {
    std::vector<Node*>& every = ((Graph*)graph)->nodes;
    size_t edges = every.empty() ? 0 : every.size() - 1;
    for (size_t i = 0; from && to && i < edges; ++i) from[i] = (CUgraphNode)every[i], to[i] = (CUgraphNode)every[i + 1];
    if (data) memset(data, 0, edges * sizeof *data);
    return *count = edges, CUDA_SUCCESS;
}
CUresult cuGraphGetEdges(CUgraph graph, CUgraphNode* from, CUgraphNode* to, size_t* count) {
    return cuGraphGetEdges_v2(graph, from, to, nullptr, count);
}
CUresult cuGraphNodeGetType(CUgraphNode node, CUgraphNodeType* type) {
    *type = ((Node*)node)->is_kernel ? CU_GRAPH_NODE_TYPE_KERNEL : CU_GRAPH_NODE_TYPE_MEMSET;
    return CUDA_SUCCESS;
}
CUresult cuGraphKernelNodeGetParams_v2(CUgraphNode node, CUDA_KERNEL_NODE_PARAMS* parameters) {
    return *parameters = ((Node*)node)->parameters, CUDA_SUCCESS;
}
CUresult cuGraphExecKernelNodeSetParams_v2(CUgraphExec executable, CUgraphNode node,
                                           const CUDA_KERNEL_NODE_PARAMS* parameters) {
    LOCKED;
    TRY(ready());
    std::vector<uint64_t> values;
    TRY(words((Function*)parameters->func, parameters->kernelParams, parameters->extra, values));
    auto& own = ((Executable*)executable)->own;
    auto found = own.find((Node*)node);
    if (found == own.end() || !found->second->is_kernel) return wrong("a graph has no such kernel");
    return set_node(found->second, *parameters, values), CUDA_SUCCESS;
}
CUresult cuGraphLaunch(CUgraphExec executable, CUstream stream) {
    LOCKED;
    TRY(ready());
    std::vector<Work> every;
    for (Node* node : ((Executable*)executable)->nodes) every.push_back(node->work);
    for (Work& work : every) TRY(put(stream, work));
    return CUDA_SUCCESS;
}
CUresult cuGraphExecDestroy(CUgraphExec) { return CUDA_SUCCESS; }
CUresult cuGraphDestroy(CUgraph) { return CUDA_SUCCESS; }

// cuda-bindings asks by the names of the first versions.
CUresult cuGetProcAddress_v2(const char* name, void** function, int, cuuint64_t, CUdriverProcAddressQueryResult* found) {
    static void* own = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    *function = nullptr;
    for (const char* suffix : {"_v3", "_v2", "WithFlags", ""})
        if (!*function) *function = dlsym(own, (std::string(name) + suffix).c_str());
    if (!strcmp(name, "cuGetProcAddress")) *function = (void*)cuGetProcAddress_v2;
    if (found) *found = *function ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    return *function ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}
CUresult cuGetProcAddress(const char* name, void** function, int version, cuuint64_t flags) {
    return cuGetProcAddress_v2(name, function, version, flags, nullptr);
}

}  // extern "C"
