"""The project's Triton kernels as cubins: for a target that has a CUDA driver, but neither Python nor a compiler.

The folder holds, per architecture, one cubin per kernel, `manifest.json`, and `unrain_kernels.h`, one C header that
loads and launches them through the driver's API. What it passes is compared with the parameters in the compiled code.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...engine.errors import UnrainError
from ...engine.files import write
from ...engine.runtime.backends.packages import missing
from ..targets import Options, Outcome
from .header import header

if TYPE_CHECKING:
    from ...kernels.triton_aot import Compiled, KernelSpec

FORMAT = 1
PRECISIONS = ("fp16", "bf16", "fp32")
NEW = 100  # from this architecture on Triton has an assembler of its own


def to_kernels(model: object, output: Path, options: Options) -> Outcome:
    """Every kernel of one precision, for every architecture asked for."""
    return export_kernels(output, architectures(options.arch), options.precision)


def export_kernels(output: Path, archs: Sequence[int], precision: str, ops: Sequence[str] | None = None) -> Outcome:
    """The kernels of these ops, of all when left out."""
    reason = missing("triton", "triton")
    if reason is not None:
        raise UnrainError(f"the kernels cannot be compiled: {reason}")
    if precision not in PRECISIONS:
        raise UnrainError(f"kernels come in {', '.join(PRECISIONS)}, not in {precision}")
    compiled = _compile(archs, precision, ops)
    entries, files = [], {}
    for spec, result in compiled:
        entry = _entry(spec, result)
        entries.append(entry)
        files[output / entry["file"]] = result.cubin
    text = header(entries)
    manifest = {
        "format": FORMAT,
        **_versions(),
        "precision": precision,
        "header": {"file": "unrain_kernels.h", "sha256": hashlib.sha256(text.encode()).hexdigest()},
        "kernels": entries,
    }
    # The manifest last: its hashes tell a folder that was left half written.
    for path, data in files.items():
        write(path, data)
    write(output / "unrain_kernels.h", text)
    write(output / "manifest.json", json.dumps(manifest, indent=1))
    spilling = [f"{entry['name']} ({entry['arch']}, {entry['spills']} bytes)" for entry in entries if entry["spills"]]
    notes = [f"{len(entries)} cubins, {sum(map(len, files.values())):,} bytes"]
    notes += [f"registers spill in {len(spilling)} of them: {', '.join(spilling[:6])}"] if spilling else []
    return Outcome([output / "manifest.json", output / "unrain_kernels.h"], notes, manifest)


def architectures(asked: Sequence[str]) -> list[int]:
    """The compute capabilities named, 87 for "sm_87"."""
    found = [re.fullmatch(r"(?:sm_?)?(\d{2,3})", name.strip().lower()) for name in asked]
    if not found or None in found:
        raise UnrainError(f"name the GPUs to compile for, --arch sm_87,sm_90 (Orin, H100); got {','.join(asked)!r}")
    return list(dict.fromkeys(int(match[1]) for match in found if match))


def _compile(archs: Sequence[int], precision: str, ops: Sequence[str] | None) -> list[tuple[KernelSpec, Compiled]]:
    from ...engine.console import progress_bar
    from ...kernels.triton_aot import OPS, compile_kernel, kernels

    try:
        known = [(arch, spec) for arch in archs for spec in kernels(arch, ops or OPS)]
    except RuntimeError as error:
        raise UnrainError(str(error)) from error
    wanted = [(arch, spec) for arch, spec in known if precision in spec.name.split("_")]
    assembler = {arch: _assembler(arch) for arch in archs}
    done = []
    with progress_bar() as bar:
        for arch, spec in bar.track(wanted, description="Compiling"):
            with assembler[arch]():
                done.append((spec, compile_kernel(spec, arch)))
    return done


def _assembler(arch: int) -> Any:
    """A context in which Triton assembles for `arch`: by what it ships, or by a CUDA toolkit that knows more."""
    import triton

    if arch < 75:
        raise UnrainError(f"sm_{arch} is older than what Triton compiles for, sm_75")
    folder = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    shipped = folder / ("ptxas-blackwell" if arch >= NEW else "ptxas")
    if _knows(shipped, arch):
        return lambda: _assembling_by(arch, None)
    for tool in (shutil.which("ptxas"), "/usr/local/cuda/bin/ptxas"):
        if tool and arch >= NEW and _knows(Path(tool), arch):
            return lambda: _assembling_by(arch, tool)
    raise UnrainError(f"no ptxas here knows sm_{arch}: neither Triton {triton.__version__}'s nor one of a CUDA toolkit")


@contextmanager
def _assembling_by(arch: int, tool: str | None) -> Iterator[None]:
    if tool is None:
        yield
        return
    name = "TRITON_PTXAS_BLACKWELL_PATH"
    before = os.environ.get(name)
    os.environ[name] = tool
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _knows(tool: Path, arch: int) -> bool:
    if not tool.is_file():
        return False
    text = subprocess.run([tool, "--help"], capture_output=True, text=True, check=False).stdout
    return re.search(rf"\bsm_{arch}\b", text) is not None


def _entry(spec: KernelSpec, result: Compiled) -> dict[str, Any]:
    """What the manifest says about one cubin."""
    parameters = []
    for name, kind in spec.signature.items():
        kind, _, multiple = kind.partition(":")
        parameters.append({"name": name, "type": kind, "multiple_of": int(multiple or 1)})
    _compare(result, [each["type"] for each in parameters])
    return {
        "name": spec.name,
        "op": spec.op,
        "arch": f"sm_{result.arch}",
        "file": f"sm_{result.arch}/{spec.name}.cubin",
        "bytes": len(result.cubin),
        "sha256": hashlib.sha256(result.cubin).hexdigest(),
        "entry": result.entry,
        "parameters": parameters,
        "constants": dict(spec.constants) | spec.grid.constants,
        "grid": spec.grid.text,
        "threads": 32 * result.warps,
        "shared": result.shared,
        "scratch": result.scratch,
        "registers": result.registers,
        "spills": result.spills,
    }


def _compare(result: Compiled, types: Sequence[str]) -> None:
    """Raise unless the compiled code takes these parameters, and Triton's two scratch pointers after them."""
    found = re.search(rf"\.entry {re.escape(result.entry)}\((.*?)\)", result.ptx, re.DOTALL)
    taken = re.findall(r"\.param \.(\w+)", found[1]) if found else []
    sizes = {"u64": 8, "s64": 8, "b64": 8, "u32": 4, "s32": 4, "b32": 4, "f32": 4}
    due = [*(8 if kind[0] == "*" or kind == "i64" else 4 for kind in types), 8, 8]
    if [sizes.get(kind) for kind in taken] != due:
        raise UnrainError(
            f"{result.name} for sm_{result.arch} takes {', '.join(taken)} where {len(types)} arguments and two scratch "
            "pointers are due: this Triton passes arguments in another way"
        )


def _versions() -> dict[str, str]:
    import triton

    from ... import __version__

    return {"unrain": __version__, "triton": triton.__version__}
