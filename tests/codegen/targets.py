"""Targets by hand: fixed ones, for texts that are the same on every machine, and less than this machine can do."""

from __future__ import annotations

from dataclasses import replace

from graphc.codegen.llvm.host import host_features, host_target
from graphc.codegen.target import Target

AVX512 = Target(
    triple="x86_64-unknown-linux-gnu",
    cpu="skylake-avx512",
    features="+avx512bw,+avx512dq,+avx512f,+avx512vl,+fma",
    vector_bytes=64,
    registers=32,
    fma=True,
    l1_bytes=32 << 10,
    l2_bytes=1 << 20,
    cores=4,
)
SSE2 = replace(AVX512, cpu="x86-64", features="+sse2", vector_bytes=16, registers=16, fma=False, l2_bytes=256 << 10)
AVX2 = replace(AVX512, cpu="haswell", features="+avx,+avx2,+f16c,+fma", vector_bytes=32, registers=16)
FIXED = {"avx512": AVX512, "sse2": SSE2}


def runnable() -> dict[str, Target]:
    """Targets whose code this machine can run, apart from itself."""
    host = host_target()
    found = {
        "one core": replace(host, cores=1),
        "many cores": replace(host, cores=64),
        "narrow": replace(host, vector_bytes=16, registers=16),
        "small caches": replace(host, l1_bytes=512, l2_bytes=4096, l3_bytes=1 << 14, cores=2),
        "no fma": replace(host, fma=False, vector_bytes=max(host.vector_bytes // 2, 16)),
    }
    if host.triple.startswith("x86_64"):
        wanted = {"sse2": SSE2, "avx2": AVX2, "avx512": AVX512}
        for name, target in wanted.items():
            if all(feature[1:] in host_features() for feature in target.features.split(",")):
                found[name] = replace(target, triple=host.triple)
    return found


def common() -> Target:
    """A target whose choices are the same on most machines: AVX2, or this machine where it cannot run that."""
    return runnable().get("avx2", host_target())
