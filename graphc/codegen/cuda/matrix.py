"""Instructions of whole warps on small matrices, and copies to shared memory that go on meanwhile.

`GRAPHC_SHIM` is defined where a C++ compiler of the host takes the place of nvcc: there, threads of a warp exchange
what they have by `__shfl_xor_sync`, and copies are done at once.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.codegen.cuda.function import Function
from graphc.codegen.cuda.memory import Memory
from graphc.codegen.kernel import AsyncCopy, Await, LoadMatrix, Mma

_OPEN = 8  # groups of copies under way that nobody waits for
_PREFIX = "gc_warp_"


def uses_matrices(text: str) -> bool:
    """Whether a kernel's text calls a function of `MATRIX_PRELUDE`."""
    return _PREFIX in text


def translators(function: Function, memory: Memory) -> dict[type, Callable[..., None]]:
    """What translates the statements of whole warps."""
    warps = _Warps(function, memory)
    return {Mma: warps.mma, LoadMatrix: warps.load, AsyncCopy: warps.copy, Await: warps.wait}


class _Warps:
    def __init__(self, function: Function, memory: Memory) -> None:
        self.f = function
        self.memory = memory

    def mma(self, statement: Mma) -> None:
        f = self.f
        names = [f.fresh() for _ in statement.results]
        operands = [f.scalar(v) for group in (statement.a, statement.b, statement.c) for v in group]
        f.run(f"float {', '.join(names)};")
        f.run(f"{_PREFIX}mma_{statement.dtype}({', '.join((*names, *operands))});")
        for value, name in zip(statement.results, names, strict=True):
            f.define(value, (name,))

    def load(self, statement: LoadMatrix) -> None:
        f, count = self.f, len(statement.results)
        name = f.fresh()
        place = self.memory.place(statement.buffer, statement.index, statement.offsets)
        turned = "true" if statement.transposed else "false"
        f.run(f"int {name}[{count}];")
        f.run(f"{_PREFIX}load<{count}, {turned}>({name}, &{place});")
        for number, value in enumerate(statement.results):
            f.define(value, (f"{name}[{number}]",))

    def copy(self, statement: AsyncCopy) -> None:
        target = self.memory.place(statement.buffer, statement.index, statement.offsets)
        source = self.memory.place(statement.source, statement.source_index, statement.source_offsets)
        mask = "true" if statement.mask is None else self.f.scalar(statement.mask)
        self.f.run(f"{_PREFIX}copy(&{target}, &{source}, {mask});")

    def wait(self, statement: Await) -> None:
        self.f.run(f"{_PREFIX}commit();")
        if statement.pending < _OPEN:
            self.f.run(f"{_PREFIX}wait<{statement.pending}>();")


MATRIX_PRELUDE = r"""
#ifndef GRAPHC_SHIM

#define GC_MMA(NAME, SHAPE, TYPE) \
  GC_INLINE void NAME(float& d0, float& d1, float& d2, float& d3, int a0, int a1, int a2, int a3, int b0, int b1, \
                      float c0, float c1, float c2, float c3) { \
    asm volatile("mma.sync.aligned." SHAPE ".row.col.f32." TYPE "." TYPE ".f32 " \
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};" \
                 : "=f"(d0), "=f"(d1), "=f"(d2), "=f"(d3) \
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1), "f"(c0), "f"(c1), "f"(c2), "f"(c3)); \
  }
GC_MMA(gc_warp_mma_f16, "m16n8k16", "f16")
GC_MMA(gc_warp_mma_bf16, "m16n8k16", "bf16")
GC_MMA(gc_tf32, "m16n8k8", "tf32")

GC_INLINE int gc_to_tf32(int bits) {
  int result;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(result) : "f"(__int_as_float(bits)));
  return result;
}

GC_INLINE void gc_warp_mma_f32(float& d0, float& d1, float& d2, float& d3, int a0, int a1, int a2, int a3, int b0,
                               int b1, float c0, float c1, float c2, float c3) {
  gc_tf32(d0, d1, d2, d3, gc_to_tf32(a0), gc_to_tf32(a1), gc_to_tf32(a2), gc_to_tf32(a3), gc_to_tf32(b0),
          gc_to_tf32(b1), c0, c1, c2, c3);
}

GC_INLINE unsigned gc_shared(const void* place) {
  unsigned result;
  asm("{ .reg .u64 wide; cvta.to.shared.u64 wide, %1; cvt.u32.u64 %0, wide; }" : "=r"(result) : "l"(place));
  return result;
}

#define GC_LDMATRIX(KIND, PLACES, ...) asm volatile("ldmatrix.sync.aligned.m8n8." KIND PLACES : __VA_ARGS__ : "r"(at))
template <int COUNT, bool TRANSPOSED> GC_INLINE void gc_warp_load(int* to, const void* place) {
  const unsigned at = gc_shared(place);
  if constexpr (COUNT == 4 && TRANSPOSED) {
    GC_LDMATRIX("x4.trans.shared.b16 ", "{%0, %1, %2, %3}, [%4];", "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]));
  } else if constexpr (COUNT == 4) {
    GC_LDMATRIX("x4.shared.b16 ", "{%0, %1, %2, %3}, [%4];", "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]));
  } else if constexpr (COUNT == 2 && TRANSPOSED) {
    GC_LDMATRIX("x2.trans.shared.b16 ", "{%0, %1}, [%2];", "=r"(to[0]), "=r"(to[1]));
  } else if constexpr (COUNT == 2) {
    GC_LDMATRIX("x2.shared.b16 ", "{%0, %1}, [%2];", "=r"(to[0]), "=r"(to[1]));
  } else if constexpr (TRANSPOSED) {
    GC_LDMATRIX("x1.trans.shared.b16 ", "{%0}, [%1];", "=r"(to[0]));
  } else {
    GC_LDMATRIX("x1.shared.b16 ", "{%0}, [%1];", "=r"(to[0]));
  }
}

GC_INLINE void gc_warp_copy(void* to, const void* from, bool exists) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(gc_shared(to)), "l"(from), "r"(exists ? 16 : 0)
               : "memory");
}
GC_INLINE void gc_warp_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int PENDING> GC_INLINE void gc_warp_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

#else

// What all threads of the warp have: all[i] is that of thread i.
template <class T> GC_INLINE void gc_gather(T value, T* all) {
  const int lane = (int)threadIdx.x % 32;
  all[lane] = value;
  for (int other = 1; other < 32; other++) all[lane ^ other] = __shfl_xor_sync(0xffffffffu, value, other);
}

GC_INLINE float gc_half(int bits, int high, bool is_bf16) {
  const unsigned short part = (unsigned short)((unsigned)bits >> 16 * high);
  return is_bf16 ? gc_bf16_to_float(part) : gc_f16_to_float(part);
}
GC_INLINE float gc_to_tf32(int bits) {
  const bool finite = (bits & 0x7f800000) != 0x7f800000;
  return __int_as_float(finite ? (int)(((unsigned)bits + 0x1000u) & 0xffffe000u) : bits);
}

// KIND: 0 for f16, 1 for bf16, 2 for tf32.
template <int KIND>
GC_INLINE void gc_mma(float& d0, float& d1, float& d2, float& d3, int a0, int a1, int a2, int a3, int b0, int b1,
                      float c0, float c1, float c2, float c3) {
  int a[4][32], b[2][32];
  const int mine[6] = {a0, a1, a2, a3, b0, b1};
  for (int i = 0; i < 4; i++) gc_gather(mine[i], a[i]);
  for (int i = 0; i < 2; i++) gc_gather(mine[4 + i], b[i]);
  const int lane = (int)threadIdx.x % 32, group = lane / 4, pair = lane % 4;
  float d[4] = {c0, c1, c2, c3};
  for (int i = 0; i < 4; i++) {
    const int column = 2 * pair + i % 2;
    for (int k = 0; k < (KIND == 2 ? 8 : 16); k++) {
      float left, right;
      if (KIND == 2) {
        left = gc_to_tf32(a[i / 2 + 2 * (k / 4)][group * 4 + k % 4]);
        right = gc_to_tf32(b[k / 4][column * 4 + k % 4]);
      } else {
        left = gc_half(a[i / 2 + 2 * (k / 8)][group * 4 + k % 8 / 2], k % 2, KIND == 1);
        right = gc_half(b[k / 8][column * 4 + k % 8 / 2], k % 2, KIND == 1);
      }
      d[i] = fmaf(left, right, d[i]);
    }
  }
  d0 = d[0], d1 = d[1], d2 = d[2], d3 = d[3];
}
#define gc_warp_mma_f16 gc_mma<0>
#define gc_warp_mma_bf16 gc_mma<1>
#define gc_warp_mma_f32 gc_mma<2>

template <int COUNT, bool TRANSPOSED> GC_INLINE void gc_warp_load(int* to, const void* place) {
  long long rows[32];
  gc_gather((long long)place, rows);
  const int lane = (int)threadIdx.x % 32, group = lane / 4, pair = lane % 4;
  for (int i = 0; i < COUNT; i++) {
    unsigned part[2];
    for (int k = 0; k < 2; k++) {
      const int row = TRANSPOSED ? 2 * pair + k : group, column = TRANSPOSED ? group : 2 * pair + k;
      part[k] = ((const unsigned short*)rows[8 * i + row])[column];
    }
    to[i] = (int)(part[0] | part[1] << 16);
  }
}

GC_INLINE void gc_warp_copy(void* to, const void* from, bool exists) {
  for (int i = 0; i < 8; i++) ((unsigned short*)to)[i] = exists ? ((const unsigned short*)from)[i] : 0;
}
GC_INLINE void gc_warp_commit() {}
template <int PENDING> GC_INLINE void gc_warp_wait() {}

#endif
"""
