// Kernels written by hand, for the tests of the shim: right ones, then wrong ones.

#define ALL 0xffffffffu

template <class T> __device__ __forceinline__ T warp_sum(T v) {
    for (int d = 16; d; d >>= 1) v += __shfl_xor_sync(ALL, v, d);
    return v;
}

extern "C" __global__ void __launch_bounds__(256) block_sums(const float* __restrict__ x, float* __restrict__ sums) {
    __shared__ float parts[8];
    float v = warp_sum(x[blockIdx.x * 256 + threadIdx.x]);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = v;
    __syncthreads();
    if (threadIdx.x < 32) {
        v = warp_sum(threadIdx.x < 8 ? parts[threadIdx.x] : 0.0f);
        if (threadIdx.x == 0) sums[blockIdx.x] = v;
    }
}

extern "C" __global__ void __launch_bounds__(256) transpose(const float* __restrict__ x, float* __restrict__ y) {
    __shared__ float tile[32][33];
    const int size = gridDim.x * 32;
    for (int r = threadIdx.y; r < 32; r += blockDim.y)
        tile[r][threadIdx.x] = x[(blockIdx.y * 32 + r) * size + blockIdx.x * 32 + threadIdx.x];
    __syncthreads();
    for (int r = threadIdx.y; r < 32; r += blockDim.y)
        y[(blockIdx.x * 32 + r) * size + blockIdx.y * 32 + threadIdx.x] = tile[threadIdx.x][r];
}

extern "C" __global__ void count_values(const int* __restrict__ x, int* __restrict__ counts, int* __restrict__ most,
                                        float* __restrict__ total) {
    const int v = x[blockIdx.x * blockDim.x + threadIdx.x];
    atomicAdd(counts + v, 1);
    atomicMax(most, v);
    atomicAdd(total, (float)v);
    int old = most[1];
    do {
        old = atomicCAS(most + 1, -1, v);
    } while (old == -1 && v == -1);
}

// The sum of all threads before each one, in dynamic shared memory, by doubling.
extern "C" __global__ void prefix_sums(const float* __restrict__ x, float* __restrict__ y) {
    GC_DYNAMIC_SHARED(memory);
    float* sums = (float*)memory;
    const unsigned int i = threadIdx.x;
    sums[i] = x[i];
    for (unsigned int step = 1; step < blockDim.x; step *= 2) {
        __syncthreads();
        const float more = i >= step ? sums[i - step] : 0.0f;
        __syncthreads();
        sums[i] += more;
    }
    y[i] = sums[i];
}

extern "C" __global__ void warp_operations(int* __restrict__ y) {
    const int i = threadIdx.x;
    int* out = y + 10 * i;
    out[0] = __shfl_sync(ALL, i, i + 1);
    out[1] = __shfl_up_sync(ALL, i, 3);
    out[2] = __shfl_down_sync(ALL, i, 3, 16);
    out[3] = __shfl_xor_sync(ALL, i, 5, 8);
    out[4] = __shfl_sync(ALL, i, 9, 8);
    out[5] = (int)__ballot_sync(ALL, i % 3 == 0);
    out[6] = __any_sync(ALL, i == 40);
    out[7] = __all_sync(ALL, i < 40);
    out[8] = __syncthreads_count(i % 2);
    out[9] = __syncthreads_or(i == 63) + 2 * __syncthreads_and(i < 63);
    if (i < 8) out[0] += 1000 * __shfl_xor_sync(0xff, i, 1);
}

extern "C" __global__ void places(int* __restrict__ y) {
    const int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    const int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    const int threads = blockDim.x * blockDim.y * blockDim.z;
    y[block * threads + thread] = 100 * block + thread;
}

extern "C" __global__ void arithmetic(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ y) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x, n = gridDim.x * blockDim.x;
    y[i] = a[i] * b[i] + a[i];
    y[n + i] = fmaf(a[i], b[i], a[i]);
    y[2 * n + i] = a[i] / b[i];
    y[3 * n + i] = sqrtf(fabsf(a[i]));
    y[4 * n + i] = rintf(a[i]);
    y[5 * n + i] = floorf(a[i]);
    y[6 * n + i] = truncf(a[i]);
    y[7 * n + i] = a[i] * 1e-40f;
    y[8 * n + i] = __int_as_float(__float_as_int(a[i]) ^ (int)0x80000000);
}

extern "C" __global__ void wide(const float* __restrict__ x, float* __restrict__ y, const float* __restrict__ from) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    float4 v = ((const float4*)(x + (int)from[0]))[i];
    v.x += 1.0f;
    v.w = v.y * v.z;
    ((float4*)y)[i] = v;
}

// A warp hands values on without a barrier of the block, and waits where it has to.
extern "C" __global__ void syncwarp_is_enough(float* __restrict__ y) {
    __shared__ float v[64];
    v[threadIdx.x] = threadIdx.x;
    __syncwarp();
    y[threadIdx.x] = v[threadIdx.x ^ 1];
}

// what is wrong from here on

extern "C" __global__ void no_barrier(float* __restrict__ y) {
    __shared__ float v[64];
    v[threadIdx.x] = 0.0f;
    __syncthreads();
    v[threadIdx.x] = threadIdx.x;
    y[threadIdx.x] = v[63 - threadIdx.x];
}

extern "C" __global__ void no_barrier_after_reading(float* __restrict__ y) {
    __shared__ float v[64];
    for (int k = 0; k < 2; k++) {
        v[threadIdx.x] = k;
        __syncthreads();
        y[64 * k + threadIdx.x] = v[63 - threadIdx.x];
    }
}

extern "C" __global__ void threads_write_one_place(float* __restrict__ y) { y[threadIdx.x / 2] = threadIdx.x; }

extern "C" __global__ void blocks_write_one_place(float* __restrict__ y) { y[threadIdx.x] = blockIdx.x; }

extern "C" __global__ void block_reads_what_another_writes(float* __restrict__ y) {
    if (blockIdx.x == 0) y[threadIdx.x] = y[32 + threadIdx.x];
    else y[32 + threadIdx.x] = 0.0f;
}

extern "C" __global__ void atomic_and_not(float* __restrict__ y) {
    if (threadIdx.x == 5) y[0] = 1.0f;
    else atomicAdd(y, 1.0f);
}

extern "C" __global__ void past_the_end(const float* __restrict__ x, float* __restrict__ y) {
    y[threadIdx.x] = x[threadIdx.x + 1];
}

extern "C" __global__ void before_the_start(float* __restrict__ y) { y[(int)threadIdx.x - 1] = 0.0f; }

extern "C" __global__ void past_shared(float* __restrict__ y) {
    __shared__ float v[32], w[32];
    w[threadIdx.x] = 1.0f;
    v[threadIdx.x + 1] = 1.0f;
    __syncthreads();
    y[threadIdx.x] = v[threadIdx.x] + w[threadIdx.x];
}

extern "C" __global__ void past_local(const float* __restrict__ x, float* __restrict__ y) {
    float v[8];
    for (int k = 0; k < 8; k++) v[k] = x[k];
    y[threadIdx.x] = v[(int)x[0]];
}

extern "C" __global__ void wide_past_local(const float* __restrict__ x, float* __restrict__ y) {
    alignas(16) float v[8];
    for (int k = 0; k < 8; k++) v[k] = x[k];
    y[threadIdx.x] = ((float4*)&v[(int)x[0]])->x;
}

extern "C" __global__ void past_dynamic(float* __restrict__ y) {
    GC_DYNAMIC_SHARED(memory);
    ((float*)memory)[threadIdx.x] = 1.0f;
    y[threadIdx.x] = ((float*)memory)[threadIdx.x];
}

extern "C" __global__ void unwritten_shared(float* __restrict__ y) {
    __shared__ float v[32];
    if (threadIdx.x != 7) v[threadIdx.x] = 1.0f;
    y[threadIdx.x] = v[threadIdx.x];
}

extern "C" __global__ void overflow(const int* __restrict__ x, int* __restrict__ y) { y[0] = x[0] + x[1]; }

extern "C" __global__ void some_wait(float* __restrict__ y) {
    if (threadIdx.x < 48) __syncthreads();
    y[threadIdx.x] = 0.0f;
}

extern "C" __global__ void wait_at_two_places(float* __restrict__ y) {
    if (threadIdx.x < 48) {
        y[threadIdx.x] = 0.0f;
        __syncthreads();
    } else {
        __syncthreads();
    }
}

extern "C" __global__ void lanes_are_missing(float* __restrict__ y) {
    if (threadIdx.x < 16) y[threadIdx.x] = __shfl_xor_sync(ALL, y[threadIdx.x], 1);
}

extern "C" __global__ void lane_not_in_the_mask(float* __restrict__ y) {
    if (threadIdx.x < 16) y[threadIdx.x] = __shfl_sync(0xffff, y[threadIdx.x], 20);
}

extern "C" __global__ void trap(float* __restrict__ y) {
    if (y[0] != 0.0f) __trap();
}
