"""What this machine and this installation have: versions, processor, GPUs, and every backend with the reason why not.

Nothing here starts CUDA or fails when something is missing.
"""

import os
import platform
import shutil
import subprocess
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Features that decide which kernels run; the rest of /proc/cpuinfo's hundred flags is noise.
FEATURES = (
    *("sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni"),
    *("avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_bf16", "amx_int8"),
    *("neon", "asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve", "sve2"),
)

# The distributions that may bring a module: a name on the index is not always the module's.
DISTRIBUTIONS = {
    "torch": ("torch",),
    "numpy": ("numpy",),
    "pillow": ("pillow",),
    "safetensors": ("safetensors",),
    "triton": ("triton", "triton-windows"),
    "onnx": ("onnx",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml"),
    "openvino": ("openvino",),
    "nncf": ("nncf",),
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "tensorrt_rtx": ("tensorrt-rtx-cu13", "tensorrt-rtx-cu12", "tensorrt-rtx"),
    "cupy": ("cupy-cuda13x", "cupy-cuda12x", "cupy-cuda11x", "cupy"),
    "av": ("av",),
    "ray": ("ray",),
}


def info() -> dict[str, Any]:
    """Versions, CPU features, GPUs, every backend with available / why not; plain JSON types only."""
    gpus = _gpus()
    return {
        "versions": _versions(),
        "platform": {"system": platform.system(), "release": platform.release(), "machine": platform.machine()},
        "cpu": _cpu(),
        "memory": _memory(),
        "gpus": gpus,
        "backends": _backends(gpus),
        "kernels": _kernels(),
    }


def _versions() -> dict[str, str | None]:
    from .. import __version__

    found: dict[str, str | None] = {"unrain": __version__, "python": platform.python_version()}
    found.update({module: _version(module) for module in DISTRIBUTIONS})
    return found


def _version(module: str) -> str | None:
    if module == "torch":
        import torch

        return str(torch.__version__)  # says which build it is (+cu130), as what pip knows may not
    for name in DISTRIBUTIONS.get(module, (module,)):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _cpu() -> dict[str, Any]:
    import torch

    lines = [line.partition(":") for line in _read("/proc/cpuinfo").splitlines()]
    facts = {key.strip().lower(): value.strip() for key, _, value in reversed(lines)}
    flags = set(facts.get("flags", facts.get("features", "")).split())
    return {
        "name": facts.get("model name") or platform.processor() or platform.machine(),
        "features": [name for name in FEATURES if name in flags],
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count() or 1,
        "cores_usable": cores_usable(),
        "torch_threads": torch.get_num_threads(),
    }


def cores_usable() -> int:
    """Cores this process may use: by affinity and by the container's quota, whichever is less."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cpu_quota()
    return affinity if quota is None else max(1, min(affinity, int(quota + 0.5)))


def _cpu_quota() -> float | None:
    """Cores' worth of time the container grants, of cgroup version 2 or 1; None when there is no limit."""
    words = _read("/sys/fs/cgroup/cpu.max").split() or [
        _read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").strip(),
        _read("/sys/fs/cgroup/cpu/cpu.cfs_period_us").strip(),
    ]
    try:
        quota, period = float(words[0]), float(words[1])
    except (ValueError, IndexError):
        return None
    return quota / period if quota > 0 and period > 0 else None


def _memory() -> dict[str, int | None]:
    lines = dict(line.split(":", 1) for line in _read("/proc/meminfo").splitlines() if ":" in line)

    def mib(key: str) -> int | None:
        words = lines.get(key, "").split()
        return int(words[0]) // 1024 if words and words[0].isdigit() else None

    limit = _read("/sys/fs/cgroup/memory.max").strip()
    return {
        "total_mib": mib("MemTotal"),
        "available_mib": mib("MemAvailable"),
        "container_limit_mib": int(limit) // 2**20 if limit.isdigit() else None,
    }


def _gpus() -> list[dict[str, Any]]:
    """NVIDIA GPUs by nvidia-smi, which costs no CUDA context; by torch where there is no such program (Jetson)."""
    keys = ("index", "name", "memory_mib", "capability", "driver")
    smi = shutil.which("nvidia-smi")
    if smi:
        query = [smi, "--query-gpu=index,name,memory.total,compute_cap,driver_version", "--format=csv,noheader,nounits"]
        try:
            done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
        except (OSError, subprocess.SubprocessError):
            done = None
        if done is not None:
            rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if line.strip()]
            return [
                {key: int(cell) if key in ("index", "memory_mib") and cell.isdigit() else cell for key, cell in row}
                for row in (list(zip(keys, cells, strict=False)) for cells in rows)
            ]
    return _gpus_by_torch()


def _gpus_by_torch() -> list[dict[str, Any]]:
    import torch

    if not torch.cuda.is_available():
        return []
    found = []
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        found.append(
            {
                "index": index,
                "name": facts.name,
                "memory_mib": facts.total_memory // 2**20,
                "capability": f"{facts.major}.{facts.minor}",
                "driver": None,
            }
        )
    return found


def _backends(gpus: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The Engine's backends, each asked by its own file, and what the kernels are built with."""
    from ..kernels import native
    from .runtime.backends import BACKENDS

    no_gpu = None if gpus else "no NVIDIA GPU on this machine"
    reasons = {name: _no_backend(name, gpus) for name in BACKENDS}
    reasons["native"] = native.available()
    reasons["triton"] = _missing("triton") or no_gpu or _no_cuda_in_torch()
    reasons["cupy"] = _missing("cupy") or no_gpu
    module = {
        "eager": "torch",
        "compile": "torch",
        "fused": "unrain",
        "native": "unrain",
        "tensorrt-rtx": "tensorrt_rtx",
    }
    return {
        name: {"available": reason is None, "version": _version(module.get(name, name)), "reason": reason}
        for name, reason in reasons.items()
    }


def _no_backend(name: str, gpus: list[dict[str, Any]]) -> str | None:
    """Why the backend runs on none of this machine's devices, in the words it has for the best of them."""
    import torch

    from .runtime.backends import backend

    reasons = []
    for device in ("cuda", "cpu") if gpus and torch.version.cuda else ("cpu",):
        try:
            reasons.append(backend(name).available(torch.device(device)))
        except Exception as error:  # a broken installation of an optional package is a reason, not a failure
            reasons.append(f"{type(error).__name__}: {' '.join(str(error).split())}")
    return None if None in reasons else reasons[0]


def _missing(module: str) -> str | None:
    return None if _installed(module) else f"not installed: pip install 'unrain[{module}]'"


def _no_cuda_in_torch() -> str | None:
    import torch

    return None if torch.version.cuda else f"torch {torch.__version__} is built without CUDA"


def _kernels() -> Any:
    """What the kernels' own registry says, each op with its implementations."""
    from .. import kernels

    return kernels.info()
