"""Device functions that every translation unit begins with.

CUDA's built-ins are the only ones used, no headers: NVRTC has none. `GRAPHC_SHIM` is defined where a C++ compiler of
the host takes the place of nvcc (in tests); instructions that only a GPU has are then written out.

What the host must define: `__device__`, `__global__`, `__shared__`, `__forceinline__`, `__launch_bounds__(n)`,
`threadIdx.x`, `blockIdx.x`, `__syncthreads()`, `__shfl_xor_sync(mask, value, offset)` of int, long long, float and
double, `__float_as_int`, `__int_as_float`, `__double_as_longlong`, `__longlong_as_double`, the functions of <math.h>
(`fmaf`, `fma`, `sqrtf`, `fabsf`, `floorf`, ...), and `GC_DYNAMIC_SHARED(name)`, which declares `unsigned char* name`,
the dynamic shared memory of the block, aligned to 16 bytes, and `GC_DYNAMIC_LINES(name)`, the same aligned to 1024.
Aliasing must not be strict.
"""

from __future__ import annotations

PRELUDE = r"""
#ifndef GRAPHC_SHIM
#define GC_DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#define GC_DYNAMIC_LINES(name) extern __shared__ __align__(1024) unsigned char name##_lines[]; \
  unsigned char* const name = name##_lines
#endif
#define GC_INLINE static __device__ __forceinline__
// What a kernel runs in some of its blocks: inlined, it would take registers in the others too.
#ifdef GRAPHC_SHIM
#define GC_SEPARATE static
#else
#define GC_SEPARATE static __device__ __noinline__
#endif

// What lies at a place of memory that the kernel does not write, or zero: a load with a predicate, not a branch.
#ifdef GRAPHC_SHIM
#define GC_LOAD_IF(exists, place) ((exists) ? (place) : 0)
#else
#define GC_LOAD_IF(exists, place) gc_load_if(exists, &(place))
template <class T> GC_INLINE T gc_load_if(bool exists, const T* place) { return exists ? *place : 0; }
#define GC_LOADS_IF(TYPE, KIND, REGISTER) \
  GC_INLINE TYPE gc_load_if(bool exists, const TYPE* place) { \
    TYPE result; \
    asm("{ .reg .pred p; setp.ne.s32 p, %2, 0; mov.b" KIND " %0, 0; @p ld.global.nc.b" KIND " %0, [%1]; }" \
        : "=" REGISTER(result) : "l"(place), "r"((int)exists)); \
    return result; \
  }
GC_LOADS_IF(unsigned short, "16", "h")
GC_LOADS_IF(int, "32", "r")
GC_LOADS_IF(float, "32", "f")
#endif

template <class T, int LANES> struct alignas(sizeof(T) * LANES) gc_vector { T lane[LANES]; };

// NaN if either is NaN, +0 over -0: one instruction where there is one.
struct gc_maximum {
  GC_INLINE int of(int a, int b) { return a > b ? a : b; }
  GC_INLINE long long of(long long a, long long b) { return a > b ? a : b; }
  GC_INLINE float of(float a, float b) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    float result;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
    return result;
#else
    if (a == b) return __int_as_float(__float_as_int(a) & __float_as_int(b));
    return a > b || a != a ? a : b;
#endif
  }
  GC_INLINE double of(double a, double b) {
    if (a == b) return __longlong_as_double(__double_as_longlong(a) & __double_as_longlong(b));
    return a > b || a != a ? a : b;
  }
};
struct gc_minimum {
  GC_INLINE int of(int a, int b) { return a < b ? a : b; }
  GC_INLINE long long of(long long a, long long b) { return a < b ? a : b; }
  GC_INLINE float of(float a, float b) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    float result;
    asm("min.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
    return result;
#else
    if (a == b) return __int_as_float(__float_as_int(a) | __float_as_int(b));
    return a < b || a != a ? a : b;
#endif
  }
  GC_INLINE double of(double a, double b) {
    if (a == b) return __longlong_as_double(__double_as_longlong(a) | __double_as_longlong(b));
    return a < b || a != a ? a : b;
  }
};
struct gc_add {
  GC_INLINE int of(int a, int b) { return (int)((unsigned)a + (unsigned)b); }
  GC_INLINE long long of(long long a, long long b) {
    return (long long)((unsigned long long)a + (unsigned long long)b);
  }
  GC_INLINE float of(float a, float b) { return a + b; }
  GC_INLINE double of(double a, double b) { return a + b; }
};
struct gc_mul {
  GC_INLINE int of(int a, int b) { return (int)((unsigned)a * (unsigned)b); }
  GC_INLINE long long of(long long a, long long b) {
    return (long long)((unsigned long long)a * (unsigned long long)b);
  }
  GC_INLINE float of(float a, float b) { return a * b; }
  GC_INLINE double of(double a, double b) { return a * b; }
};
struct gc_or {
  template <class T> GC_INLINE T of(T a, T b) { return a | b; }
};
struct gc_and {
  template <class T> GC_INLINE T of(T a, T b) { return a & b; }
};

// f16 and bf16 are their bits. Every conversion rounds once.
GC_INLINE float gc_bf16_to_float(unsigned short bits) { return __int_as_float((int)((unsigned)bits << 16)); }

GC_INLINE unsigned short gc_float_to_bf16(float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  unsigned short result;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result) : "f"(x));
  return result;
#else
  const unsigned bits = (unsigned)__float_as_int(x);
  return (unsigned short)((x != x ? bits | 0x400000u : bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
#endif
}

GC_INLINE float gc_f16_to_float(unsigned short bits) {
#ifdef __CUDA_ARCH__
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(bits));
  return result;
#else
  const unsigned low = bits & 0x7fffu, shifted = low << 13;
  // The exponent is too small by 112; one multiplication corrects it, for subnormal numbers too.
  const float scaled = __int_as_float((int)shifted) * 5192296858534827628530496329220096.0f;
  const unsigned magnitude = low >= 0x7c00u ? shifted | 0x7f800000u : (unsigned)__float_as_int(scaled);
  return __int_as_float((int)(magnitude | (bits & 0x8000u) << 16));
#endif
}

GC_INLINE unsigned short gc_float_to_f16(float x) {
#ifdef __CUDA_ARCH__
  unsigned short result;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result) : "f"(x));
  return result;
#else
  const unsigned bits = (unsigned)__float_as_int(x), low = bits & 0x7fffffffu;
  unsigned result;
  if (low > 0x7f800000u) {
    result = (low >> 13 & 0x3ffu) | 0x7e00u;
  } else if (low < 0x38800000u) {
    // Adding 0.5 puts the last bit of a subnormal number at the last bit of the sum.
    result = (unsigned)__float_as_int(__int_as_float((int)low) + 0.5f) - 0x3f000000u;
  } else {
    result = (low + 0xfffu - (112u << 23) + (low >> 13 & 1u)) >> 13;
    result = result < 0x7c00u ? result : 0x7c00u;
  }
  return (unsigned short)(result | (bits >> 16 & 0x8000u));
#endif
}

// So that rounding the result to 16 bits is like rounding once: an inexact result has its last bit set.
GC_INLINE float gc_round_to_odd(double x) {
  const float near = (float)x;
  const double back = (double)near;
  if (back == x || x != x) return near;
  return __int_as_float((__float_as_int(near) - (fabs(back) > fabs(x) ? 1 : 0)) | 1);
}
GC_INLINE unsigned short gc_double_to_f16(double x) { return gc_float_to_f16(gc_round_to_odd(x)); }
GC_INLINE unsigned short gc_double_to_bf16(double x) { return gc_float_to_bf16(gc_round_to_odd(x)); }

// The values of all threads of a block, combined by halves: thread i with thread i + THREADS / 2 first. All threads get
// the result. With more than one warp it contains a barrier, after which `scratch` is read.
template <int THREADS, class COMBINE, class T> GC_INLINE T gc_block_reduce(T value, T* scratch) {
  constexpr int WARPS = THREADS > 32 ? THREADS / 32 : 1;
  constexpr int WIDTH = THREADS < 32 ? THREADS : 32;
  constexpr unsigned ALL = WIDTH < 32 ? (1u << (WIDTH & 31)) - 1 : 0xffffffffu;
  const int thread = (int)threadIdx.x, warp = thread / 32, lane = thread % 32;
  if (WARPS > 1 && WARPS <= 8) {
    scratch[thread] = value;
    __syncthreads();
    T part[WARPS];
#pragma unroll
    for (int i = 0; i < WARPS; i++) part[i] = scratch[i * 32 + lane];
#pragma unroll
    for (int half = WARPS / 2; half > 0; half /= 2) {
#pragma unroll
      for (int i = 0; i < half; i++) part[i] = COMBINE::of(part[i], part[i + half]);
    }
    value = part[0];
  } else if (WARPS > 8) {
    // Each warp combines a few columns; rows are one longer, so that a column lies in different banks.
    scratch[warp * 33 + lane] = value;
    __syncthreads();
    const int column = warp * (32 / WARPS) + lane / WARPS;
    value = scratch[lane % WARPS * 33 + column];
#pragma unroll
    for (int half = WARPS / 2; half > 0; half /= 2) value = COMBINE::of(value, __shfl_xor_sync(ALL, value, half));
    if (lane % WARPS == 0) scratch[WARPS * 33 + column] = value;
    __syncthreads();
    value = scratch[WARPS * 33 + lane];
  }
#pragma unroll
  for (int half = WIDTH / 2; half > 0; half /= 2) value = COMBINE::of(value, __shfl_xor_sync(ALL, value, half));
  return value;
}

// The value of one thread, in all threads.
template <class T> GC_INLINE T gc_block_extract(T value, int from, T* scratch) {
  if ((int)threadIdx.x == from) *scratch = value;
  __syncthreads();
  return *scratch;
}

// Lane `from` of two vectors, the second counted on from the first: another one for each thread.
template <int THREADS, class T> GC_INLINE T gc_block_shuffle(T first, T second, int from, T* scratch) {
  const int thread = (int)threadIdx.x;
  scratch[thread] = first;
  scratch[THREADS + thread] = second;
  __syncthreads();
  return scratch[from];
}
"""
