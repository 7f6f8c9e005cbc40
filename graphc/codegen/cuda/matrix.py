"""Instructions of whole warps on small matrices, and copies to shared memory that go on meanwhile.

`GRAPHC_SHIM` is defined where a C++ compiler of the host takes the place of nvcc: there, threads of a warp exchange
what they have by `__shfl_xor_sync`, and copies are done at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from graphc.codegen.cuda.function import Function
from graphc.codegen.cuda.memory import Memory
from graphc.codegen.cuda.spelling import integer, memory_type
from graphc.codegen.kernel import Affine, AsyncCopy, Await, Exchange, Exp2, LoadMatrix, Mma, Param, Value

_OPEN = 8  # groups of copies under way that nobody waits for
_PREFIX = "gc_warp_"


def uses_matrices(text: str) -> bool:
    """Whether a kernel's text calls a function of `MATRIX_PRELUDE`."""
    return _PREFIX in text


class Warps:
    """Translates the statements of whole warps. Places in shared memory are what instructions take: a register and a
    number of bytes, the same register wherever only the number differs.
    """

    def __init__(self, function: Function, memory: Memory) -> None:
        self.f = function
        self.memory = memory
        self.is_read_by_groups = False  # what copies bring must be made known to products of lines
        self._bases: dict[Param, tuple[str, int]] = {}
        self.translators: dict[type, Callable[..., None]] = {
            Mma: self._mma,
            Exchange: self._exchange,
            Exp2: self._power,
            LoadMatrix: self._load,
            AsyncCopy: self._copy,
            Await: self._wait,
        }

    def begin(self, own: Mapping[Param, tuple[str, int]]) -> None:
        """Name where memory of the block's own begins: for each buffer that of an array, and bytes after it."""
        names: dict[str, str] = {}
        for buffer, (array, offset) in own.items():
            if array not in names:
                names[array] = self.f.let(f"{_PREFIX}place", f"{_PREFIX}address({array})", "base")
            self._bases[buffer] = names[array], offset

    def place(self, buffer: Param, index: Affine, offsets: Value) -> str:
        """Where element `index + offsets` of memory of the block lies, as instructions take it."""
        varying, constant = self.memory.parts(buffer, index, offsets)
        base, offset = self._bases[buffer]
        size = buffer.dtype.itemsize
        place = self.f.once(f"{_PREFIX}place", f"{base} + {size} * {varying}", "at")
        return f"{place} + {integer(offset + size * constant)}"

    def _mma(self, statement: Mma) -> None:
        f = self.f
        names = [f.fresh() for _ in statement.results]
        operands = [f.scalar(v) for group in (statement.a, statement.b, statement.c) for v in group]
        f.run(f"float {', '.join(names)};")
        f.run(f"{_PREFIX}mma_{statement.dtype}({', '.join((*names, *operands))});")
        for value, name in zip(statement.results, names, strict=True):
            f.define(value, (name,))

    def _exchange(self, statement: Exchange) -> None:
        value = self.f.scalar(statement.value)
        self.f.define_each(statement.result, [f"__shfl_xor_sync(0xffffffffu, {value}, {statement.bits})"])

    def _power(self, statement: Exp2) -> None:
        self.f.define_each(statement.result, [f"gc_warp_exp2({self.f.scalar(statement.value)})"])

    def _load(self, statement: LoadMatrix) -> None:
        f, count = self.f, len(statement.results)
        name = f.fresh()
        place = self.place(statement.buffer, statement.index, statement.offsets)
        turned = "true" if statement.transposed else "false"
        f.run(f"int {name}[{count}];")
        f.run(f"{_PREFIX}load<{count}, {turned}>({name}, {place});")
        for number, value in enumerate(statement.results):
            f.define(value, (f"{name}[{number}]",))

    def _copy(self, statement: AsyncCopy) -> None:
        f, source = self.f, statement.source
        target = self.place(statement.buffer, statement.index, statement.offsets)
        varying, constant = self.memory.parts(source, statement.source_index, statement.source_offsets)
        place = f.once(f"{memory_type(source.dtype)}*", f"{self.memory.pointers[source]} + {varying}", "from")
        mask = "true" if statement.mask is None else f.scalar(statement.mask)
        f.run(f"{_PREFIX}copy({target}, {place} + {integer(constant)}, {mask});")

    def _wait(self, statement: Await) -> None:
        self.f.run(f"{_PREFIX}commit();")
        if statement.pending < _OPEN:
            self.f.run(f"{_PREFIX}wait<{statement.pending}>();")
            if self.is_read_by_groups:
                self.f.run("gc_group_written();")


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

// To the nearest, ties away from zero, as cvt.rna.tf32 does, but for the lower 13 bits, which instructions ignore.
GC_INLINE int gc_to_tf32(int bits) {
  const bool finite = fabsf(__int_as_float(bits)) < __int_as_float(0x7f800000);
  return (int)((unsigned)bits + (finite ? 0x1000u : 0u));
}

GC_INLINE void gc_warp_mma_f32(float& d0, float& d1, float& d2, float& d3, int a0, int a1, int a2, int a3, int b0,
                               int b1, float c0, float c1, float c2, float c3) {
  gc_tf32(d0, d1, d2, d3, gc_to_tf32(a0), gc_to_tf32(a1), gc_to_tf32(a2), gc_to_tf32(a3), gc_to_tf32(b0),
          gc_to_tf32(b1), c0, c1, c2, c3);
}

// A place in shared memory, as instructions take it.
typedef unsigned gc_warp_place;
GC_INLINE gc_warp_place gc_warp_address(const void* place) {
  unsigned result;
  asm("{ .reg .u64 wide; cvta.to.shared.u64 wide, %1; cvt.u32.u64 %0, wide; }" : "=r"(result) : "l"(place));
  return result;
}

#define GC_LDMATRIX(KIND, PLACES, ...) asm volatile("ldmatrix.sync.aligned.m8n8." KIND PLACES : __VA_ARGS__ : "r"(at))
template <int COUNT, bool TRANSPOSED> GC_INLINE void gc_warp_load(int* to, gc_warp_place at) {
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

GC_INLINE float gc_warp_exp2(float x) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
}

GC_INLINE void gc_warp_copy(gc_warp_place to, const void* from, bool exists) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(exists ? 16 : 0) : "memory");
}
GC_INLINE void gc_warp_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int PENDING> GC_INLINE void gc_warp_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

#else

typedef unsigned char* gc_warp_place;
GC_INLINE gc_warp_place gc_warp_address(const void* place) { return (unsigned char*)place; }

// Not inlined: a kernel calls them often, which would take long to compile.
#define GC_HOST static __device__ __noinline__

// What all threads of the warp have: all[i] is that of thread i.
template <class T> GC_HOST void gc_gather(T value, T* all) {
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
GC_HOST void gc_mma(float& d0, float& d1, float& d2, float& d3, int a0, int a1, int a2, int a3, int b0, int b1,
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

template <int COUNT, bool TRANSPOSED> GC_HOST void gc_warp_load(int* to, gc_warp_place at) {
  long long rows[32];
  gc_gather((long long)at, rows);
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

GC_INLINE float gc_warp_exp2(float x) { return x < -126.0f ? 0.0f : exp2f(x); }

GC_HOST void gc_warp_copy(gc_warp_place to, const void* from, bool exists) {
  for (int i = 0; i < 8; i++) ((unsigned short*)to)[i] = exists ? ((const unsigned short*)from)[i] : 0;
}
GC_INLINE void gc_warp_commit() {}
template <int PENDING> GC_INLINE void gc_warp_wait() {}

#endif
"""
