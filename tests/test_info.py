"""`unrain.info()`: JSON types only, nothing started, nothing fails when a part of the machine is missing."""

import json
import subprocess
import sys

import pytest
import torch

from unrain.engine import info as module

BACKENDS = {"eager", "compile", "onnxruntime", "openvino", "tensorrt", "tensorrt-rtx", "native", "triton", "cupy"}


@pytest.fixture
def files(monkeypatch):
    """What /proc and /sys say, for a test to choose; a file that is not named does not exist."""
    contents = {}
    monkeypatch.setattr(module, "_read", lambda path: contents.get(path, ""))
    return contents


def test_answer_is_json_with_a_reason_for_every_refusal():
    facts = module.info()
    assert json.loads(json.dumps(facts)) == facts
    assert set(facts["backends"]) >= BACKENDS
    for name, backend in facts["backends"].items():
        assert backend["available"] is (backend["reason"] is None), name
        assert backend["reason"] is None or "\n" not in backend["reason"]
    assert facts["backends"]["eager"] == {"available": True, "version": torch.__version__, "reason": None}
    assert facts["versions"]["torch"] == torch.__version__
    assert 1 <= facts["cpu"]["cores_usable"] <= facts["cpu"]["cores"]


def test_cuda_is_not_initialised():
    code = "import unrain, torch; unrain.info(); assert not torch.cuda.is_initialized()"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_machine_that_tells_nothing(files, monkeypatch):
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    monkeypatch.setattr(module, "_gpus_by_torch", lambda: [])
    facts = module.info()
    assert facts["cpu"]["features"] == [] and facts["memory"]["total_mib"] is None
    assert facts["gpus"] == [] and "compiler" in facts["backends"]["compile"]["reason"]


@pytest.mark.parametrize(
    "name, text, cores",
    [
        ("/sys/fs/cgroup/cpu.max", "150000 100000\n", 2),
        ("/sys/fs/cgroup/cpu.max", "25000 100000\n", 1),
        ("/sys/fs/cgroup/cpu.max", "max 100000\n", 8),
        ("/sys/fs/cgroup/cpu.max", "odd\n", 8),
        ("/sys/fs/cgroup/unrelated", "", 8),
    ],
)
def test_cores_follow_the_containers_quota(files, monkeypatch, name, text, cores):
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    files[name] = text
    assert module.cores_usable() == cores


def test_cores_follow_the_older_quota_and_the_affinity(files, monkeypatch):
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda pid: set(range(4)), raising=False)
    files["/sys/fs/cgroup/cpu/cpu.cfs_quota_us"] = "300000\n"
    files["/sys/fs/cgroup/cpu/cpu.cfs_period_us"] = "100000\n"
    assert module.cores_usable() == 3
    files["/sys/fs/cgroup/cpu/cpu.cfs_quota_us"] = "-1\n"
    assert module.cores_usable() == 4


def test_processor_is_read_from_its_flags(files):
    files["/proc/cpuinfo"] = "processor : 0\nmodel name : Good CPU\nflags : fpu avx2 fma avx512_bf16\n\nprocessor : 1\n"
    cpu = module._cpu()
    assert cpu["name"] == "Good CPU" and cpu["features"] == ["avx2", "fma", "avx512_bf16"]


def test_a_broken_backend_is_a_reason(monkeypatch):
    from unrain.engine.runtime import backends

    def broken(name):
        raise OSError("libbroken.so: cannot\nopen")

    monkeypatch.setattr(backends, "backend", broken)
    assert module.info()["backends"]["openvino"]["reason"] == "OSError: libbroken.so: cannot open"


def test_gpus_from_nvidia_smi(monkeypatch):
    monkeypatch.setattr(module.shutil, "which", lambda name: f"/usr/bin/{name}")
    answer = "0, NVIDIA H100 80GB HBM3, 81559, 9.0, 580.159.04\n1, Orin, [N/A], 8.7, 540.3\n"
    done = subprocess.CompletedProcess([], 0, stdout=answer, stderr="")
    monkeypatch.setattr(module.subprocess, "run", lambda *a, **k: done)
    first, second = module._gpus()
    assert first == {
        "index": 0,
        "name": "NVIDIA H100 80GB HBM3",
        "memory_mib": 81559,
        "capability": "9.0",
        "driver": "580.159.04",
    }
    assert second["memory_mib"] == "[N/A]"


def test_a_broken_nvidia_smi_is_no_error(monkeypatch):
    monkeypatch.setattr(module.shutil, "which", lambda name: f"/usr/bin/{name}")

    def fail(*arguments, **options):
        raise subprocess.TimeoutExpired("nvidia-smi", 20)

    monkeypatch.setattr(module.subprocess, "run", fail)
    monkeypatch.setattr(module, "_gpus_by_torch", lambda: [])
    assert module._gpus() == []


def test_the_version_of_torch_says_which_build_it_is(monkeypatch):
    """PyPI's CUDA build calls itself 2.14.1 in what pip keeps, and 2.14.1+cu130 in Python."""
    monkeypatch.setattr(module.metadata, "version", lambda name: "2.14.1")
    monkeypatch.setattr(torch, "__version__", "2.14.1+cu130")
    assert module.info()["versions"]["torch"] == "2.14.1+cu130"
