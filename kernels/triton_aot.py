"""Every Triton kernel of the project, compiled ahead of time: no GPU and no driver is needed.

    for spec in kernels(arch=87):
        compiled = compile_kernel(spec, arch=87)
        compiled.cubin, compiled.registers, compiled.shared, compiled.spills

A KernelSpec is one kernel at its default configuration for one dtype and layout: what `unrain.export` packs into files,
and what the tests compile for every architecture. The launch code of kernels/<op>/triton.py takes its block sizes,
warps and stages from the same functions that fill the table, so both speak of the same kernel.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

ARCHITECTURES = (80, 87, 89, 90, 100, 120)
OPS = ("lstm_gates", "conv_lstm", "gru_gates", "charbonnier", "memory_read", "memory_update", "ssim")


class Grid:
    """How many programs a launch starts, written once: it is computed from `text`, and an exported kernel says it.

    "images * (pixels / PIXELS)" is a product of lengths, which "/" divides into blocks, rounded up. `terms` are lengths
    that are such quotients themselves, "height / TILE_H", or numbers that are no argument of the kernel.
    """

    def __init__(self, text: str, **terms: str | int) -> None:
        named = {name: each for name, each in terms.items() if isinstance(each, str)}
        self.text = ", ".join((text, *(f"{name} = {each}" for name, each in named.items())))
        self.constants = {name: each for name, each in terms.items() if isinstance(each, int)}
        self._factors = [_lengths(named.get(each, each)) for each in text.split(" * ")]

    def __call__(self, **sizes: Any) -> tuple[int]:
        sizes |= self.constants
        programs = 1
        for length, block in self._factors:
            programs *= -(-sizes[length] // sizes[block]) if block else sizes[length]
        return (programs,)


def _lengths(factor: str) -> tuple[str, str]:
    length, _, block = factor.strip("()").partition(" / ")
    return length, block


@dataclass(frozen=True)
class KernelSpec:
    """One kernel, ready to compile.

    grid       how many programs it is launched with
    signature  per run-time argument in order its type: "*fp16:16" a pointer, "i32" an integer, "fp32" a number;
               ":16" promises a multiple of 16
    constants  per compile-time argument its value; an argument is in one of the two
    """

    name: str
    op: str
    fn: Any
    grid: Grid
    signature: Mapping[str, str]
    constants: Mapping[str, Any]
    warps: int
    stages: int

    @classmethod
    def of(
        cls,
        name: str,
        op: str,
        fn: Any,
        grid: Grid,
        types: Mapping[str, str],
        constants: Mapping[str, Any],
        warps: int,
        stages: int = 1,
    ) -> KernelSpec:
        """Takes types and constants in any order and with names the kernel does not have; constants win."""
        kept = {each: constants[each] for each in fn.arg_names if each in constants}
        left = {each: types[each] for each in fn.arg_names if each not in kept}
        return cls(name, op, fn, grid, left, kept, warps, stages)


@dataclass(frozen=True)
class Compiled:
    """A kernel for one architecture.

    entry      the name of the kernel inside the cubin
    shared     bytes of dynamic shared memory to ask for at the launch
    spills     bytes of stack per thread, which is where registers are spilled to
    scratch    bytes of global scratch memory per program; two pointers (scratch, profile) follow the arguments
    """

    name: str
    arch: int
    cubin: bytes
    ptx: str
    entry: str
    registers: int
    shared: int
    spills: int
    warps: int
    scratch: int


def kernels(arch: int = 87, ops: Iterable[str] = OPS) -> list[KernelSpec]:
    """The table for one architecture (87 is 8.7, Jetson Orin); needs triton, and a process without TRITON_INTERPRET."""
    import triton

    if triton.knobs.runtime.interpret:
        raise RuntimeError("kernels cannot be compiled under TRITON_INTERPRET=1: unset it and start again")
    modules = [import_module(f"{__package__}.{op}.triton") for op in ops]
    return [spec for module in modules for spec in module.specs(arch)]


def compile_kernel(spec: KernelSpec, arch: int) -> Compiled:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    hints = {name: kind.split(":")[1] for name, kind in spec.signature.items() if ":" in kind}
    attributes = {
        (spec.fn.arg_names.index(name),): [["tt.divisibility", int(multiple)]] for name, multiple in hints.items()
    }
    types = {name: spec.signature.get(name, "constexpr").split(":")[0] for name in spec.fn.arg_names}
    source = ASTSource(fn=spec.fn, signature=types, constexprs=dict(spec.constants), attrs=attributes)
    options = {"num_warps": spec.warps, "num_stages": spec.stages}
    built = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    registers, spills = _resources(built.asm["cubin"])
    return Compiled(
        name=spec.name,
        arch=arch,
        cubin=built.asm["cubin"],
        ptx=built.asm["ptx"],
        entry=built.metadata.name,
        registers=registers,
        shared=built.metadata.shared,
        spills=spills,
        warps=built.metadata.num_warps,
        scratch=built.metadata.global_scratch_size,
    )


def _resources(cubin: bytes) -> tuple[int, int]:
    """Registers and stack bytes per thread, read back from the machine code by the cuobjdump that triton ships."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", text)
    if found is None:
        raise RuntimeError(f"cuobjdump said nothing about registers: {text[:200]!r}")
    registers, stack, local = map(int, found.groups())
    return registers, stack + local
