"""The Triton kernels on a machine without a GPU: run by the interpreter, and compiled ahead of time without spills."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unrain import kernels
from unrain.kernels import registry, triton_aot
from unrain.kernels.conv_lstm import tiling

pytest.importorskip("triton")

HERE = Path(__file__).parent
SHARED_LIMIT = {80: 163, 87: 163, 89: 99, 90: 227, 100: 227, 120: 99}  # KiB of shared memory a program may have


def interpreted(*arguments: str) -> str:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:warnings", *arguments]
    done = subprocess.run(command, env=environment, cwd=HERE, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.timeout(900)
def test_interpreted():
    """test_triton_ops.py in a process of its own: the interpreter must be chosen before triton is imported."""
    summary = interpreted(str(HERE / "test_triton_ops.py")).strip().splitlines()[-1]
    assert "passed" in summary and "skipped" not in summary, summary


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_interpreted_on_every_sample():
    """The tests generated from op_db, with Triton as one more implementation."""
    interpreted(str(HERE / "test_ops.py"), "-k", "triton-cpu")


def compile_table(arch: int, wanted: str = "") -> None:
    """Compiles the table for one architecture, prints what each kernel takes, and wants no spills."""
    faults = []
    print(f"\n{'sm_' + str(arch):60s} warps registers shared spills")
    for spec in triton_aot.kernels(arch):
        if wanted not in spec.name:
            continue
        built = triton_aot.compile_kernel(spec, arch)
        print(f"{spec.name:60s} {built.warps:5d} {built.registers:9d} {built.shared:6d} {built.spills:6d}")
        if built.spills or built.shared > SHARED_LIMIT[arch] * 1024 or built.scratch:
            faults.append(f"{spec.name}: {built.spills} bytes spilled, {built.shared} of shared memory")
    assert not faults, "\n".join(faults)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("arch", [87, 90])
def test_half_precision_compiles_ahead_of_time_without_spills(arch):
    compile_table(arch, "fp16")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("arch", triton_aot.ARCHITECTURES)
def test_everything_compiles_ahead_of_time_without_spills(arch):
    compile_table(arch)


def test_arguments_of_one_compile_too():
    """Triton makes a constant of an integer argument that is 1, which then has no methods; and None of a pointer."""
    kinds = {}
    for spec in triton_aot.kernels(87):
        fixed = tuple(value for value in spec.constants.values() if isinstance(value, bool))
        kinds.setdefault((spec.fn, fixed), spec)
    for spec in kinds.values():
        ones = {name: 1 for name, kind in spec.signature.items() if kind.startswith("i32")}
        optional = {"bias_ptr"} & {*spec.signature}
        signature = {name: kind for name, kind in spec.signature.items() if name not in {*ones, *optional}}
        constants = {**spec.constants, **ones, **dict.fromkeys(optional)}
        triton_aot.compile_kernel(replace(spec, signature=signature, constants=constants), 87)


def test_the_table():
    specs = triton_aot.kernels(90)
    names = [spec.name for spec in specs]
    assert len(set(names)) == len(names)
    assert {spec.op for spec in specs} == set(triton_aot.OPS)
    for spec in specs:
        assert {*spec.signature, *spec.constants} == set(spec.fn.arg_names), spec.name
        assert not {*spec.signature} & {*spec.constants}, spec.name


@pytest.mark.parametrize(
    ("arch", "instruction"), [(80, "mma.sync"), (90, "wgmma.mma_async"), (100, "tcgen05.mma"), (120, "mma.sync")]
)
def test_conv_lstm_multiplies_on_tensor_cores(arch, instruction):
    (spec,) = (
        each for each in triton_aot.kernels(arch, ["conv_lstm"]) if each.name == "conv_lstm_step_32to32_fp16_nhwc"
    )
    built = triton_aot.compile_kernel(spec, arch)
    assert instruction in built.ptx
    assert built.entry in built.ptx and built.cubin[:4] == b"\x7fELF"
    assert "cp.async" in built.ptx  # the taps are fetched ahead


def test_registers_of_conv_lstm_hold_the_four_gates_of_a_channel():
    """No gate passes through shared memory: the only exchange is that of c, c' and h, [pixels, channels] each."""
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    for arch in (80, 90):
        (spec,) = (s for s in triton_aot.kernels(arch, ["conv_lstm"]) if s.name == "conv_lstm_step_32to32_fp16_nhwc")
        types = {name: spec.signature.get(name, "constexpr").split(":")[0] for name in spec.fn.arg_names}
        source = ASTSource(fn=spec.fn, signature=types, constexprs=dict(spec.constants))
        options = {"num_warps": spec.warps, "num_stages": spec.stages}
        text = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options).asm["ttgir"]
        exchanged = [line for line in text.splitlines() if "ttg.convert_layout" in line and "f32" in line]
        assert exchanged and all("tensor<256x32xf32" in line for line in exchanged), "\n".join(exchanged)


def test_what_is_missing_is_said():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert "TRITON_INTERPRET=1" in kernels.info()["lstm_gates"]["triton"]
    with kernels.use("triton"), pytest.raises(registry.BackendUnavailable, match="there is no CUDA GPU"):
        kernels.charbonnier(torch.zeros(3), torch.ones(3))


class TestTiling:
    """What `tune` found is kept for later processes, and "auto" goes by it."""

    CALL = registry.Call(
        "conv_lstm", torch.device("cpu"), torch.float16, "nhwc", False, (32, 32, True, True, torch.float32)
    )
    X = torch.empty(1, 32, 4, 4, dtype=torch.float16).to(memory_format=torch.channels_last)

    @pytest.fixture(autouse=True)
    def folder(self, monkeypatch, tmp_path):
        monkeypatch.setenv("UNRAIN_CACHE", str(tmp_path))
        tiling.findings.cache_clear()
        yield tmp_path
        tiling.findings.cache_clear()

    def remember(self, mine, rival):
        best = tiling.Tiling(8, 32, 32, 32, 8, 2)
        tiling.remember(torch.device("cpu"), 32, 32, torch.float16, False, tiling.Measured(best, mine, rival))
        tiling.findings.cache_clear()  # as in a new process
        return best

    def test_unmeasured_is_left_to_cudnn(self):
        assert "not measured" in tiling.verdict(self.CALL)
        assert tiling.tiling(self.X, 32, first=False) == tiling.default_tiling(
            32, 32, torch.float16, True, 80, False, False
        )

    def test_a_win_is_taken(self):
        best = self.remember(80.0, 130.0)
        assert tiling.verdict(self.CALL) is None
        assert tiling.tiling(self.X, 32, first=False) == best
        assert tiling.tiling(self.X, 32, first=True) != best
        assert "not measured" in tiling.verdict(self.CALL._replace(layout="nchw"))

    def test_a_loss_is_not(self):
        self.remember(130.0, 80.0)
        assert tiling.verdict(self.CALL) == "measured 130 us, cuDNN and lstm_gates 80 us"

    @pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', '{"a": [[1], 2, 3]}'])
    def test_a_spoiled_file_counts_as_none(self, folder, text):
        (folder / "conv_lstm_triton.json").write_text(text)
        assert tiling.findings() == {}

    def test_candidates_fit_and_are_several(self):
        for channels in (16, 32, 64, 128):
            for arch in triton_aot.ARCHITECTURES:
                found = tiling.candidates(channels, arch)
                assert 4 <= len(found) <= 80, (channels, arch, len(found))
                assert all(channels % each.block_c == 0 for each in found)
