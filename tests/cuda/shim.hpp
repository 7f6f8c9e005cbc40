// CUDA's built-ins for a C++17 compiler: a unit of CUDA C after this header runs on the host, as shim.cpp says.
//
// No header of the system is included, so that no name of theirs stands in the way of the unit's. Sites of barriers and
// shuffles are told apart by their line, which a compiler cannot duplicate as it does with code.
#pragma once

#define GRAPHC_SHIM 1

#define __global__
#define __device__
#define __host__
#define __constant__ const
#define __shared__ static
// What `extern __shared__ unsigned char name[]` is to nvcc.
#define GC_DYNAMIC_SHARED(name) unsigned char* const name = shim_dynamic
#define GC_DYNAMIC_LINES(name) GC_DYNAMIC_SHARED(name)
#define __grid_constant__
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))

// vector types

#define SHIM_VECTORS(name, type, a2, a4)                                                                     \
    struct name##1 { type x; };                                                                              \
    struct alignas(a2) name##2 { type x, y; };                                                               \
    struct name##3 { type x, y, z; };                                                                        \
    struct alignas(a4) name##4 { type x, y, z, w; };                                                         \
    inline name##1 make_##name##1(type x) { return {x}; }                                                    \
    inline name##2 make_##name##2(type x, type y) { return {x, y}; }                                         \
    inline name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; }                              \
    inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }

SHIM_VECTORS(char, signed char, 2, 4)
SHIM_VECTORS(uchar, unsigned char, 2, 4)
SHIM_VECTORS(short, short, 4, 8)
SHIM_VECTORS(ushort, unsigned short, 4, 8)
SHIM_VECTORS(int, int, 8, 16)
SHIM_VECTORS(uint, unsigned int, 8, 16)
SHIM_VECTORS(longlong, long long, 16, 16)
SHIM_VECTORS(ulonglong, unsigned long long, 16, 16)
SHIM_VECTORS(float, float, 8, 16)
SHIM_VECTORS(double, double, 16, 16)

struct dim3 {
    unsigned int x = 1, y = 1, z = 1;
};

// What the threads are: shim.cpp sets it before a thread runs on.

struct ShimPlace {
    uint3 thread, block;
    dim3 threads, blocks;
};
extern "C" ShimPlace shim_place;
extern "C" unsigned char shim_dynamic[];
#define threadIdx shim_place.thread
#define blockIdx shim_place.block
#define blockDim shim_place.threads
#define gridDim shim_place.blocks
static const int warpSize = 32;

// barriers and what a warp does together

extern "C" {
// Wait for all threads of the block; the sum of what they brought.
unsigned int shim_barrier(unsigned int brought, int line);
// Wait for the lanes of `mask`; what lane `source` brought.
unsigned long long shim_exchange(const char* what, unsigned int mask, unsigned long long bits, unsigned int source,
                                 int line);
// Wait for the lanes of `mask`; which of them brought something that is not 0.
unsigned int shim_ballot(const char* what, unsigned int mask, unsigned int brought, int line);
// Say that `size` bytes at `address` are changed atomically.
void shim_atomic(const void* address, unsigned int size);
[[noreturn]] void shim_trap(int line);
}

#define SHIM_LINE int line = __builtin_LINE()

inline void __syncthreads(SHIM_LINE) { shim_barrier(0, line); }
inline int __syncthreads_count(int predicate, SHIM_LINE) { return (int)shim_barrier(predicate != 0, line); }
inline int __syncthreads_or(int predicate, SHIM_LINE) { return shim_barrier(predicate != 0, line) != 0; }
inline int __syncthreads_and(int predicate, SHIM_LINE) { return shim_barrier(predicate == 0, line) == 0; }
inline void __syncwarp(unsigned int mask = 0xffffffffu, SHIM_LINE) { shim_ballot("__syncwarp", mask, 0, line); }
inline void __threadfence_block() {}
inline void __threadfence() {}
inline void __threadfence_system() {}
inline void __trap(SHIM_LINE) { shim_trap(line); }

inline unsigned int shim_lane() {
    return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32;
}

inline unsigned int __ballot_sync(unsigned int mask, int predicate, SHIM_LINE) {
    return shim_ballot("__ballot_sync", mask, predicate != 0, line);
}
inline int __any_sync(unsigned int mask, int predicate, SHIM_LINE) {
    return shim_ballot("__any_sync", mask, predicate != 0, line) != 0;
}
inline int __all_sync(unsigned int mask, int predicate, SHIM_LINE) {
    return shim_ballot("__all_sync", mask, predicate == 0, line) == 0;
}

template <class T>
inline T shim_shuffle(const char* what, unsigned int mask, T value, unsigned int source, int line) {
    static_assert(sizeof(T) <= 8, "shuffles move at most 8 bytes");
    unsigned long long bits = 0;
    __builtin_memcpy(&bits, &value, sizeof(T));
    bits = shim_exchange(what, mask, bits, source, line);
    __builtin_memcpy(&value, &bits, sizeof(T));
    return value;
}
// Lanes `width` apart are groups of their own; who reads past the end of the group reads its own value.
template <class T>
inline T __shfl_sync(unsigned int mask, T value, int lane, int width = 32, SHIM_LINE) {
    unsigned int first = shim_lane() & ~(unsigned int)(width - 1);
    return shim_shuffle("__shfl_sync", mask, value, first | ((unsigned int)lane & (width - 1)), line);
}
template <class T>
inline T __shfl_up_sync(unsigned int mask, T value, unsigned int delta, int width = 32, SHIM_LINE) {
    unsigned int self = shim_lane(), first = self & ~(unsigned int)(width - 1);
    return shim_shuffle("__shfl_up_sync", mask, value, self < first + delta ? self : self - delta, line);
}
template <class T>
inline T __shfl_down_sync(unsigned int mask, T value, unsigned int delta, int width = 32, SHIM_LINE) {
    unsigned int self = shim_lane(), last = self | (unsigned int)(width - 1);
    return shim_shuffle("__shfl_down_sync", mask, value, self + delta > last ? self : self + delta, line);
}
template <class T>
inline T __shfl_xor_sync(unsigned int mask, T value, int bits, int width = 32, SHIM_LINE) {
    unsigned int self = shim_lane(), last = self | (unsigned int)(width - 1), other = self ^ (unsigned int)bits;
    return shim_shuffle("__shfl_xor_sync", mask, value, other > last ? self : other, line);
}

// atomics: nothing runs between the reading and the writing. They are not inlined, so that the checks see one access.

#define SHIM_ATOMIC(name, type, changed)                                                                     \
    __attribute__((noinline, no_sanitize("thread", "undefined"), unused)) static type name(type* p, type v) {  \
        shim_atomic(p, sizeof(type));                                                                        \
        type old = *p;                                                                                       \
        *p = changed;                                                                                        \
        return old;                                                                                          \
    }
#define SHIM_ATOMICS(type)                                                                                   \
    SHIM_ATOMIC(atomicMin, type, v < old ? v : old)                                                          \
    SHIM_ATOMIC(atomicMax, type, v > old ? v : old)                                                          \
    SHIM_ATOMIC(atomicAnd, type, (type)(old & v))                                                            \
    SHIM_ATOMIC(atomicOr, type, (type)(old | v))                                                             \
    SHIM_ATOMIC(atomicXor, type, (type)(old ^ v))                                                            \
    SHIM_ATOMIC(atomicExch, type, v)                                                                         \
    __attribute__((noinline, no_sanitize("thread", "undefined"), unused)) static type atomicCAS(               \
        type* p, type expected, type v) {                                                                    \
        shim_atomic(p, sizeof(type));                                                                        \
        type old = *p;                                                                                       \
        if (old == expected) *p = v;                                                                         \
        return old;                                                                                          \
    }
SHIM_ATOMICS(int)
SHIM_ATOMICS(unsigned int)
SHIM_ATOMICS(long long)
SHIM_ATOMICS(unsigned long long)
SHIM_ATOMIC(atomicAdd, int, (int)((unsigned int)old + (unsigned int)v))
SHIM_ATOMIC(atomicAdd, unsigned int, old + v)
SHIM_ATOMIC(atomicAdd, unsigned long long, old + v)
SHIM_ATOMIC(atomicAdd, float, old + v)
SHIM_ATOMIC(atomicAdd, double, old + v)
SHIM_ATOMIC(atomicSub, int, (int)((unsigned int)old - (unsigned int)v))
SHIM_ATOMIC(atomicSub, unsigned int, old - v)
SHIM_ATOMIC(atomicExch, float, v)

// bits

#define SHIM_BITS(name, to, from)                                                                            \
    inline to name(from value) {                                                                             \
        to result;                                                                                           \
        static_assert(sizeof(to) == sizeof(from), "");                                                       \
        __builtin_memcpy(&result, &value, sizeof(to));                                                       \
        return result;                                                                                       \
    }
SHIM_BITS(__float_as_int, int, float)
SHIM_BITS(__float_as_uint, unsigned int, float)
SHIM_BITS(__int_as_float, float, int)
SHIM_BITS(__uint_as_float, float, unsigned int)
SHIM_BITS(__double_as_longlong, long long, double)
SHIM_BITS(__longlong_as_double, double, long long)

inline int __clz(int v) { return v ? __builtin_clz((unsigned int)v) : 32; }
inline int __clzll(long long v) { return v ? __builtin_clzll((unsigned long long)v) : 64; }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __ffsll(long long v) { return __builtin_ffsll(v); }
inline int __popc(unsigned int v) { return __builtin_popcount(v); }
inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
inline unsigned int __umulhi(unsigned int a, unsigned int b) { return (unsigned int)((unsigned long long)a * b >> 32); }
inline int __mulhi(int a, int b) { return (int)((long long)a * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
inline long long __mul64hi(long long a, long long b) { return (long long)((__int128)a * b >> 64); }

// arithmetic: exact IEEE operations; the unit is compiled without contraction

extern "C" {
float floorf(float);
float ceilf(float);
float truncf(float);
float rintf(float);
float nearbyintf(float);
float sqrtf(float);
float fabsf(float);
float exp2f(float);
float fmaf(float, float, float);
float copysignf(float, float);
float fminf(float, float);
float fmaxf(float, float);
float fmodf(float, float);
float ldexpf(float, int);
double floor(double);
double ceil(double);
double trunc(double);
double rint(double);
double nearbyint(double);
double sqrt(double);
double fabs(double);
double fma(double, double, double);
double copysign(double, double);
double fmin(double, double);
double fmax(double, double);
double fmod(double, double);
double ldexp(double, int);
int abs(int);
long long llabs(long long);
}
inline float floor(float v) { return __builtin_floorf(v); }
inline float ceil(float v) { return __builtin_ceilf(v); }
inline float trunc(float v) { return __builtin_truncf(v); }
inline float rint(float v) { return __builtin_rintf(v); }
inline float sqrt(float v) { return __builtin_sqrtf(v); }
inline float fabs(float v) { return __builtin_fabsf(v); }
inline float abs(float v) { return __builtin_fabsf(v); }
inline double abs(double v) { return __builtin_fabs(v); }
inline float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline float copysign(float a, float b) { return __builtin_copysignf(a, b); }
inline bool isnan(float v) { return v != v; }
inline bool isnan(double v) { return v != v; }
inline bool isinf(float v) { return __builtin_isinf(v); }
inline bool isinf(double v) { return __builtin_isinf(v); }
inline bool isfinite(float v) { return __builtin_isfinite(v); }
inline bool isfinite(double v) { return __builtin_isfinite(v); }
inline bool signbit(float v) { return __builtin_signbit(v); }
inline bool signbit(double v) { return __builtin_signbit(v); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return __builtin_sqrtf(a); }
inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double a) { return __builtin_sqrt(a); }
inline double __fma_rn(double a, double b, double c) { return __builtin_fma(a, b, c); }

// Only of numbers that fit, as the kernel IR says of `cast`.
inline int __float2int_rz(float v) { return (int)v; }
inline int __float2int_rn(float v) { return (int)__builtin_rintf(v); }
inline unsigned int __float2uint_rz(float v) { return (unsigned int)v; }
inline long long __float2ll_rz(float v) { return (long long)v; }
inline int __double2int_rz(double v) { return (int)v; }
inline long long __double2ll_rz(double v) { return (long long)v; }
inline float __int2float_rn(int v) { return (float)v; }
inline float __uint2float_rn(unsigned int v) { return (float)v; }
inline float __ll2float_rn(long long v) { return (float)v; }
inline double __int2double_rn(int v) { return (double)v; }
inline double __ll2double_rn(long long v) { return (double)v; }
inline float __double2float_rn(double v) { return (float)v; }

#define SHIM_EXTREMES(type)                                                                                  \
    inline type min(type a, type b) { return b < a ? b : a; }                                                \
    inline type max(type a, type b) { return a < b ? b : a; }
SHIM_EXTREMES(int)
SHIM_EXTREMES(unsigned int)
SHIM_EXTREMES(long)
SHIM_EXTREMES(unsigned long)
SHIM_EXTREMES(long long)
SHIM_EXTREMES(unsigned long long)
inline float min(float a, float b) { return __builtin_fminf(a, b); }
inline float max(float a, float b) { return __builtin_fmaxf(a, b); }
inline double min(double a, double b) { return __builtin_fmin(a, b); }
inline double max(double a, double b) { return __builtin_fmax(a, b); }

// memory: a cache's hints are nothing here

template <class T> inline T __ldg(const T* p) { return *p; }
template <class T> inline T __ldcs(const T* p) { return *p; }
template <class T> inline T __ldcg(const T* p) { return *p; }
template <class T> inline void __stcs(T* p, T v) { *p = v; }
template <class T> inline void __stcg(T* p, T v) { *p = v; }
