"""What a figure depends on: set equal for all that is compared, and written down beside every result."""

from __future__ import annotations

import ctypes
import platform
import subprocess
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ..info import info
from . import bystanders

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_ROOT = Path(__file__).resolve().parents[2]
_state = {"allocator": "as the system has it"}


def settle(threads: int | None = None) -> None:
    """The conditions all contenders in this process run under.

    glibc hands large blocks back to the system and page-faults them in again, which makes whatever allocates look
    several times slower than it is: everybody gets an allocator that keeps what it has. Denormals are flushed for all.
    """
    torch.set_num_threads(threads or torch.get_num_threads())
    torch.set_flush_denormal(True)
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for option, value in ((_M_MMAP_THRESHOLD, 1 << 30), (_M_TRIM_THRESHOLD, (1 << 31) - 1), (_M_TOP_PAD, 1 << 28)):
            libc.mallopt(option, value)
        _state["allocator"] = "glibc, large blocks are kept (mallopt)"


def machine() -> str:
    """The machine as the name of a folder: its GPU where there is one, else its processor, cores and vectors."""
    found = info()
    if found["gpus"]:
        return _slug(found["gpus"][0]["name"])
    return _slug(f"{found['cpu']['name']} {found['cpu']['cores']} cores {vectors(found['cpu']['features'])}")


def vectors(features: list[str]) -> str:
    """The widest there are: processors of several kinds have one name."""
    return "AVX-512" if "avx512f" in features else "AVX2" if "avx2" in features else ""


def facts(device: str = "cpu") -> dict[str, Any]:
    """Machine, versions, commit, settings and what else ran; nothing that names a host or a person."""
    found = info()
    described: dict[str, Any] = {
        "machine": machine(),
        "cpu": found["cpu"]["name"],
        "cores": found["cpu"]["cores"],
        "features": found["cpu"]["features"],
        "versions": {name: version for name, version in {**found["versions"], **_rivals()}.items() if version},
        "commit": commit(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "threads": torch.get_num_threads(),
        "allocator": _state["allocator"],
        "denormals": "flushed",
        "cores_taken": bystanders.cores_taken(),
    }
    if device.startswith("cuda"):
        described["gpu"] = found["gpus"][0]
        described["clocks"] = gpu_clocks()
        described["versions"]["cuda"] = torch.version.cuda
        described["versions"]["cudnn"] = torch.backends.cudnn.version()
    return described


def _rivals() -> dict[str, str | None]:
    """Versions of what is only measured against."""
    known: dict[str, str | None] = {}
    for name in ("kornia", "opencv-python-headless", "opencv-python", "pytorch-msssim"):
        try:
            known[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            known[name] = None
    return known


def commit() -> str | None:
    """The commit of this checkout, with "+" where files differ from it; None where it is installed from elsewhere."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--untracked-files=no", "--", *_CODE) else "")
    except (OSError, subprocess.SubprocessError):
        return None


_CODE = ("engine", "kernels", "csrc", "export", "unrain", "benchmarks/*.py")


def _git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(_ROOT), *words], capture_output=True, text=True, timeout=20, check=True)
    return done.stdout.strip()


def gpu_clocks() -> dict[str, str] | None:
    """Of the first GPU, as nvidia-smi gives them: what it runs at now, and what it may."""
    keys = ("clocks.sm", "clocks.mem", "clocks.max.sm", "power.limit", "temperature.gpu")
    query = ["nvidia-smi", "-i", "0", f"--query-gpu={','.join(keys)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return dict(zip(keys, (cell.strip() for cell in done.stdout.splitlines()[0].split(",")), strict=False))


def _slug(name: str) -> str:
    return "-".join(name.lower().replace("(r)", " ").replace("(tm)", " ").split())
