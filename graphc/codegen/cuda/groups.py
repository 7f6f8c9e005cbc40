"""Instructions with which four warps together multiply matrices in shared memory: Hopper's `wgmma` (sm_90a).

`GRAPHC_SHIM` is defined where a C++ compiler of the host takes the place of nvcc: there, what a product reads is read
when the thread waits for it, as late as the device may.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from graphc.codegen.cuda.function import Function
from graphc.codegen.cuda.matrix import Warps
from graphc.codegen.kernel import AwaitGroups, GroupMma, Kernel, statements

_PREFIX = "gc_group_"
_QUEUE = f"{_PREFIX}products"
_CALL = re.compile(rf"\b{_PREFIX}mma_(bf16|f16)_(\d+)<")


def multiplies_lines(kernel: Kernel) -> bool:
    """Whether a kernel has products of lines."""
    return any(isinstance(s, GroupMma) for s in statements(kernel.body))


class Groups:
    """Translates the statements of groups of warps. A product's results stay in the variables of what it adds to."""

    def __init__(self, function: Function, warps: Warps) -> None:
        self.f = function
        self.warps = warps
        self._variables: set[str] = set()
        self.translators: dict[type, Callable[..., None]] = {GroupMma: self._mma, AwaitGroups: self._wait}

    def begin(self) -> None:
        """Open the queue of products that are under way."""
        self.f.run(f"{_QUEUE} products;")

    def carry(self, name: str) -> None:
        """`name` is the variable of a value that a loop carries, which products may change."""
        self._variables.add(name)

    def _mma(self, statement: GroupMma) -> None:
        f = self.f
        names = []
        for value in statement.c:
            name = f.scalar(value)
            if name not in self._variables:
                name = f.fresh("sum")
                f.run(f"float {name} = {f.scalar(value)};")
                self._variables.add(name)
            names.append(name)
        places, turned = [], []
        for lines in (statement.left, statement.right):
            place = self.warps.place(lines.buffer, lines.index, lines.offsets)
            places.append(f.once(f"{_PREFIX}matrix", f"{_PREFIX}lines({place})", "lines"))
            turned.append("true" if lines.turned else "false")
        called = f"{_PREFIX}mma_{statement.left.buffer.dtype}_{2 * len(names)}<{', '.join(turned)}>"
        f.run(f"{called}(products, {', '.join(places)}, {', '.join(names)});")
        for value, name in zip(statement.results, names, strict=True):
            f.define(value, (name,))

    def _wait(self, statement: AwaitGroups) -> None:
        f = self.f
        f.run(f"{_PREFIX}wait<{statement.pending}>(products);")
        for value, result in zip(statement.values, statement.results, strict=True):
            name = f.scalar(value)
            f.run(f"{_PREFIX}ready({name});")
            f.define(result, (name,))


def group_prelude(texts: Iterable[str]) -> str:
    """The functions that the kernels `texts` call; empty where none does."""
    called = sorted({match for text in texts for match in _CALL.findall(text)})
    return "\n".join([_PRELUDE, *(_product(dtype, int(columns)) for dtype, columns in called)]) if called else ""


def _product(dtype: str, columns: int) -> str:
    """A function that begins to add a product of 64 steps to the thread's part of a matrix of 64 x `columns`."""
    count = columns // 2
    operands, places = (
        ", ".join(f"{part}{i}{end}" for i in range(count)) for part, end in (('"+f"(d', ")"), ("%", ""))
    )
    arguments = ", ".join(f"float& d{i}" for i in range(count))
    head = f"template <bool LEFT, bool RIGHT> GC_INLINE void {_PREFIX}mma_{dtype}_{columns}"
    matrices = f"{_PREFIX}matrix left, {_PREFIX}matrix right"
    instruction = f"wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.{dtype}.{dtype}"
    rest = f"{{{places}}}, %{count}, %{count + 1}, 1, 1, 1, %{count + 2}, %{count + 3};"
    given = f"LEFT, RIGHT, {'true' if dtype == 'bf16' else 'false'}, {count}"
    return f"""
#ifndef GRAPHC_SHIM
{head}({_QUEUE}&, {matrices}, {arguments}) {{
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
  for (int k = 0; k < 4; k++)
    asm volatile("{instruction} {rest}"
                 : {operands}
                 : "l"({_PREFIX}at(left, LEFT, k)), "l"({_PREFIX}at(right, RIGHT, k)), "n"(!LEFT), "n"(!RIGHT));
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}}
#else
{head}({_QUEUE}& products, {matrices}, {arguments}) {{
  float* const to[] = {{{", ".join(f"&d{i}" for i in range(count))}}};
  {_PREFIX}begin(products, left, right, {given}, to);
}}
#endif
"""


_PRELUDE = r"""
// Lines of 128 bytes whose pieces of 16 bytes are permuted (PTX ISA, "Asynchronous Warpgroup Level Matrix Shared Memory
// Layout"): eight lines are a pattern of 1024 bytes. Turned, they have the steps of a row each; else 64 rows of a step,
// and the next 64 rows begin 64 lines later.
#ifndef GRAPHC_SHIM

struct gc_group_products {};
typedef unsigned gc_group_matrix;

// The lower half of a matrix descriptor: the address, and 8192 bytes between blocks of 64 rows, in pieces.
GC_INLINE gc_group_matrix gc_group_lines(unsigned place) { return (place & 0x3ffffu) >> 4 | 0x2000000u; }
// The descriptor of what is k times 16 steps further. Its upper half: 1024 bytes between patterns, in pieces; 1 in the
// highest two bits says how these are permuted.
GC_INLINE unsigned long long gc_group_at(gc_group_matrix lines, bool turned, int k) {
  return (unsigned long long)(lines + (turned ? 32 : 2048) / 16 * k) | 0x4000004000000000ull;
}

// What threads wrote to shared memory is there for products of lines.
GC_INLINE void gc_group_written() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
template <int PENDING> GC_INLINE void gc_group_wait(gc_group_products&) {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}
// The value that is in a register from here on.
GC_INLINE void gc_group_ready(float& value) { asm volatile("" : "+f"(value)::"memory"); }

#else

typedef const unsigned char* gc_group_matrix;
struct gc_group_product {
  gc_group_matrix left, right;
  bool left_turned, right_turned, is_bf16;
  int count;
  float* to[128];
};
struct gc_group_products {
  gc_group_product open[8];
  int begun = 0, done = 0;
};

GC_INLINE gc_group_matrix gc_group_lines(const unsigned char* place) { return place; }
GC_INLINE void gc_group_written() {}
GC_INLINE void gc_group_ready(float&) {}

GC_INLINE float gc_group_element(gc_group_matrix lines, int row, int step, bool turned, bool is_bf16) {
  const int distance = turned ? row * 128 + step * 2 : row / 64 * 8192 + step * 128 + row % 64 * 2;
  const unsigned long long address = (unsigned long long)(lines + distance);
  const unsigned short bits = *(const unsigned short*)(address ^ (address >> 3 & 0x70));
  return is_bf16 ? gc_bf16_to_float(bits) : gc_f16_to_float(bits);
}

GC_HOST void gc_group_begin(gc_group_products& products, gc_group_matrix left, gc_group_matrix right, bool left_turned,
                            bool right_turned, bool is_bf16, int count, float* const* to) {
  if (products.begun - products.done == 8) __trap();
  gc_group_product& made = products.open[products.begun++ % 8];
  made.left = left, made.right = right, made.left_turned = left_turned, made.right_turned = right_turned;
  made.is_bf16 = is_bf16, made.count = count;
  for (int i = 0; i < count; i++) made.to[i] = to[i];
}

GC_HOST void gc_group_finish(gc_group_products& products, int pending) {
  const int thread = (int)threadIdx.x % 128, row = thread / 32 * 16 + thread % 32 / 4, column = 2 * (thread % 4);
  while (products.begun - products.done > pending) {
    const gc_group_product& one = products.open[products.done++ % 8];
    float rows[2][64];
    for (int i = 0; i < 128; i++)
      rows[i / 64][i % 64] = gc_group_element(one.left, row + i / 64 * 8, i % 64, one.left_turned, one.is_bf16);
    for (int i = 0; i < one.count; i++) {
      if (i / 2 % 2) continue;  // both rows of a column together
      float upper = *one.to[i], lower = *one.to[i + 2];
      for (int k = 0; k < 64; k++) {
        const float other =
            gc_group_element(one.right, column + i / 4 * 8 + i % 2, k, one.right_turned, one.is_bf16);
        upper = fmaf(rows[0][k], other, upper), lower = fmaf(rows[1][k], other, lower);
      }
      *one.to[i] = upper, *one.to[i + 2] = lower;
    }
  }
}
template <int PENDING> GC_INLINE void gc_group_wait(gc_group_products& products) { gc_group_finish(products, PENDING); }

#endif
"""
