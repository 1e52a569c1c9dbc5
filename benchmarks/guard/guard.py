"""A guard against slower kernels that looks at no clock: instructions of the native ops, resources of the Triton ones.

    python benchmarks/guard/guard.py            compare with the committed figures
    python benchmarks/guard/guard.py --update   take what is found as the new figures

Instructions are callgrind's, of one call on one thread of the AVX2 tier (valgrind knows no AVX-512), as compiled by the
g++ the figures name. Registers, shared memory and spills are those of the machine code for sm_90.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CSRC = HERE.parent.parent / "csrc"
FIGURES = HERE / "figures.json"
TIER, ARCH = "avx2", 90
INSTRUCTIONS, REGISTERS = 0.03, 0.05  # the margins: what another patch of the same compiler, or of ptxas, may change


def native_reason(figures: dict[str, Any] | None = None) -> str | None:
    """Why the instructions cannot be counted here, or None."""
    if shutil.which("valgrind") is None:
        return "valgrind is not installed"
    if platform.machine().lower() not in ("x86_64", "amd64") or "avx2" not in Path("/proc/cpuinfo").read_text():
        return "this machine has no AVX2"
    if shutil.which("g++") is None:
        return "there is no g++ on this machine"
    if figures is not None and figures["compiler"] != compiler():
        return f"the figures are of {figures['compiler']}, this is {compiler()}"
    return None


def compiler() -> str:
    return "g++ " + subprocess.run(["g++", "-dumpversion"], capture_output=True, text=True, check=True).stdout.strip()


def native_counts(folder: Path, csrc: Path = CSRC) -> dict[str, int]:
    """Instructions per op and direction."""
    from unrain.csrc import build

    program, found = folder / "counts", folder / "callgrind.out"
    flags = [*build.GNU_FLAGS, *build.TIERS[TIER][0], "-Wno-maybe-uninitialized", "-fopenmp"]
    sources = [HERE / "counts.cpp", csrc / "conv_pack.cpp", csrc / "tiers" / f"{TIER}.cpp"]
    subprocess.run(["g++", *flags, f"-DTIER={TIER}", f"-I{csrc}", *map(str, sources), "-o", str(program)], check=True)
    counting = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={found}", str(program)]
    subprocess.run(counting, check=True, capture_output=True, text=True, cwd=folder)
    listing = ["callgrind_annotate", "--inclusive=yes", "--threshold=100", str(found)]
    text = subprocess.run(listing, check=True, capture_output=True, text=True).stdout
    lines = re.findall(r"^\s*([\d,]+) .*\bcounted_(\w+)", text, re.MULTILINE)
    return {name: int(count.replace(",", "")) for count, name in sorted(lines, key=lambda line: line[1])}


def kernel_resources() -> dict[str, dict[str, int]]:
    """Registers, bytes of shared memory and bytes of spills of every Triton kernel in half precision."""
    from unrain.kernels import triton_aot

    found = {}
    for spec in triton_aot.kernels(ARCH):
        if "fp16" in spec.name:
            built = triton_aot.compile_kernel(spec, ARCH)
            found[spec.name] = {"registers": built.registers, "shared": built.shared, "spills": built.spills}
    return dict(sorted(found.items()))


def worse_counts(found: dict[str, int], figures: dict[str, int]) -> list[str]:
    """What takes more instructions than the margin allows, or is not known."""
    if found.keys() != figures.keys():
        return [f"counted {sorted(found)}, the figures are of {sorted(figures)}"]
    return [
        f"{name}: {count} instructions, {100 * (count / figures[name] - 1):+.1f}% of the {figures[name]} committed"
        for name, count in found.items()
        if count > figures[name] * (1 + INSTRUCTIONS)
    ]


def worse_resources(found: dict[str, dict[str, int]], figures: dict[str, dict[str, int]]) -> list[str]:
    """What takes more registers or shared memory than the margin allows, or spills more at all."""
    if found.keys() != figures.keys():
        return [f"found {sorted(found)}, the figures are of {sorted(figures)}"]
    problems = []
    for name, now in found.items():
        for key, margin in (("registers", REGISTERS), ("shared", REGISTERS), ("spills", 0.0)):
            if now[key] > figures[name][key] * (1 + margin):
                problems.append(f"{name}: {key} {now[key]}, {figures[name][key]} committed")
    return problems


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        counts = native_counts(Path(folder)) if native_reason() is None else {}
    if not counts:
        print(f"no instructions: {native_reason()}", file=sys.stderr)
    resources = kernel_resources()
    if "--update" in sys.argv[1:]:
        known = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
        import triton

        new = {"compiler": compiler(), "tier": TIER, "instructions": counts} if counts else {}
        new |= {"triton": triton.__version__, "arch": ARCH, "resources": resources}
        FIGURES.write_text(json.dumps({**known, **new}, indent=1) + "\n")
        return 0
    figures = json.loads(FIGURES.read_text())
    problems = worse_counts(counts, figures["instructions"]) if counts else []
    problems += worse_resources(resources, figures["resources"])
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
