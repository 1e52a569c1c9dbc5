"""Builds `unrain/_native` (CPU) and `unrain/_native_cuda` where the compilers are there, and writes down why where not.

Both are plain C libraries for ctypes that know neither Python nor torch: a wheel is for a platform, not for a version.
Nothing here may fail an install: without a compiler the package is pure Python, and `unrain/_build_info.json` holds the
reason for `unrain.info()`. Environment variables:

    UNRAIN_NO_NATIVE=1      build nothing
    CC, CXX                 the compilers; for another machine with _PYTHON_HOST_PLATFORM, as in linux-aarch64
    UNRAIN_CUDA_ARCHS=80,90 compute capabilities; empty for no CUDA half; `CUDA_ARCHS` where it is not set
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension
from setuptools.command.bdist_wheel import bdist_wheel, get_platform
from setuptools.command.build_ext import build_ext, customize_compiler, new_compiler

ROOT = Path(__file__).resolve().parent.parent
CSRC = ROOT / "csrc"
# Without SIMD flags: the core, which libunrain (csrc/CMakeLists.txt) is made of, too.
CORE = tuple(
    path.relative_to(CSRC).as_posix()
    for path in (*sorted(CSRC.glob("*.cpp")), *sorted((CSRC / "program").glob("*.cpp")))
    if not path.name.startswith("bindings")
)
SOURCES = (".cpp", ".cu", ".o")
CUDA_ARCHS = "80,86,87,89,90,100,120"  # the last one also as PTX, for what comes after it


def _flags_of() -> dict[str, list[str]]:
    """The lines of flags.txt: the flags by name of a file in tiers/, and `all`."""
    lines = (CSRC / "flags.txt").read_text(encoding="utf-8").splitlines()
    words = [line.split() for line in lines if line and not line.startswith("#")]
    return {name: flags for name, *flags in words}


_FLAGS = _flags_of()
GNU_FLAGS = ["-std=c++17", "-g0", *_FLAGS.pop("all")]
MSVC_FLAGS = ["/std:c++17", "/O2", "/EHsc", "/fp:precise"]
_MSVC = {"avx2": ["/arch:AVX2"], "avx512": ["/arch:AVX512"], "avx512bf16": ["/arch:AVX512"]}
TIERS = {name: (flags, _MSVC.get(name, [])) for name, flags in _FLAGS.items()}  # of GCC and Clang, of MSVC
TIERS_OF = {"x86_64": ("avx2", "avx512"), "amd64": ("avx2", "avx512"), "aarch64": ("neon",), "arm64": ("neon",)}


def machine() -> str:
    """What is built for: this machine, or what a cross-compilation names."""
    return os.environ.get("_PYTHON_HOST_PLATFORM", platform.machine()).rpartition("-")[2].lower()


def tiers() -> tuple[str, ...]:
    return ("generic", *TIERS_OF.get(machine(), ()))


def units() -> tuple[str, ...]:
    """The files of csrc/tiers that this machine's build compiles: the tiers, and what adds to one of them."""
    return (*tiers(), "avx512bf16") if "avx512" in tiers() else tiers()


def extensions() -> list[Extension]:
    if os.environ.get("UNRAIN_NO_NATIVE"):
        return []
    return [
        Extension("unrain._native", ["csrc/bindings.cpp"], optional=True),
        Extension("unrain._native_cuda", ["csrc/cuda/bindings.cpp"], optional=True),
    ]


class Wheel(bdist_wheel):
    """For every Python 3, and, where nothing was compiled, for every platform."""

    def get_tag(self) -> tuple[str, str, str]:
        folder = self.bdist_dir or ""
        built = any(Path(folder).rglob("_native*.*")) if folder else False
        return ("py3", "none", _tag_of_platform(self.plat_name or get_platform(folder)) if built else "any")


class BuildNative(build_ext):
    """One extension at a time, each allowed to fail; objects stay in build/native for as long as the sources do."""

    def run(self) -> None:
        self.reasons: dict[str, str | None] = {}
        super().run()
        target = ROOT / "unrain" if self.inplace else Path(self.build_lib) / "unrain"
        target.mkdir(parents=True, exist_ok=True)
        _replace(target / "_build_info.json", json.dumps(self.reasons, indent=1))

    def build_extension(self, ext: Extension) -> None:
        name = ext.name.rpartition(".")[2]
        try:
            if name == "_native_cuda":
                self._build_cuda(ext)
            else:
                self._build_cpu(ext)
            self.reasons[name] = None
        except Exception as error:  # whatever it is, the rest of the package works without this part
            self.reasons[name] = _one_line(error)
            print(f"unrain: {name} is left out: {self.reasons[name]}", file=sys.stderr)

    def get_ext_filename(self, fullname: str) -> str:
        """No name of a Python version: they are libraries."""
        return f"{fullname.replace('.', os.sep)}{'.dll' if sys.platform == 'win32' else '.so'}"

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return []  # the sources name what is shown

    def copy_extensions_to_source(self) -> None:
        """Only those that were built, and each in one step: other processes may be importing the old one."""
        build_py = self.get_finalized_command("build_py")
        for ext in self.extensions:
            inplace, built = self._get_inplace_equivalent(build_py, ext)
            if os.path.exists(built):
                staged = f"{inplace}.{os.getpid()}.new"
                shutil.copy2(built, staged)
                os.replace(staged, inplace)

    def _build_cpu(self, ext: Extension) -> None:
        flags = self._flags()
        objects = self._objects([*((path, []) for path in sorted(CSRC.glob("bindings*.cpp"))), *self._core()], flags)
        self._link(ext, objects, [flag for flag in flags if flag == "-fopenmp"])

    def core_objects(self) -> list[str]:
        """The core alone, which libunrain can be linked from (UNRAIN_OBJECTS of CMakeLists.txt)."""
        self.compiler = new_compiler()
        customize_compiler(self.compiler)
        return self._objects(self._core(), self._flags())

    def _core(self) -> list[tuple[Path, list[str]]]:
        """Sources, and what flags each has of its own."""
        msvc = self.compiler.compiler_type == "msvc"
        added = ("neonbf16",) if self._has_neonbf16() else ()
        tiers = [(CSRC / "tiers" / f"{unit}.cpp", TIERS[unit][msvc]) for unit in (*units(), *added)]
        return [*((CSRC / name, []) for name in CORE), *tiers]

    def _objects(self, files: list[tuple[Path, list[str]]], flags: list[str]) -> list[str]:
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            return list(pool.map(lambda unit: self._compile(unit[0], flags + unit[1]), files))

    def _build_cuda(self, ext: Extension) -> None:
        archs = [a for a in os.environ.get("UNRAIN_CUDA_ARCHS", CUDA_ARCHS).split(",") if a]
        if not archs:
            raise RuntimeError("the package was built without it (UNRAIN_CUDA_ARCHS is empty)")
        nvcc = find_nvcc()
        if nvcc is None:
            raise RuntimeError("nvcc was not found (PATH, CUDA_HOME) when the package was installed")
        objects = [self._compile(CSRC / "cuda" / "bindings.cpp", self._flags())]
        objects += [compile_cuda(nvcc, source, archs, _store()) for source in sorted((CSRC / "cuda").glob("*.cu"))]
        library = next((d for d in cuda_library_folders(nvcc) if (d / "libcudart_static.a").exists()), None)
        if library is None:
            raise RuntimeError(f"libcudart_static.a was not found beside {nvcc}")
        self._link(ext, objects, [str(library / "libcudart_static.a"), "-ldl", "-lrt", "-lpthread"])

    def _flags(self) -> list[str]:
        if self.compiler.compiler_type == "msvc":
            return [*MSVC_FLAGS, "/openmp"]
        # GCC's own AVX-512 header trips this warning (its PR 105593); tests/csrc holds the sources to stricter ones.
        openmp = ["-fopenmp"] if self._takes("-fopenmp") else []
        bf16 = ["-DUNRAIN_NEONBF16"] if self._has_neonbf16() else []
        return [*GNU_FLAGS, "-Wno-maybe-uninitialized", *openmp, *bf16]

    def _has_neonbf16(self) -> bool:
        """Whether the compiler knows ARM's products of bfloat16; whether the processor does is Linux's to say."""
        return "neon" in units() and sys.platform == "linux" and self._takes(TIERS["neonbf16"][0][-1])

    def _takes(self, flag: str) -> bool:
        """Whether the compiler links a program with this flag (Apple's has no OpenMP)."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe.cpp")
            with_openmp = "#include <omp.h>\nint main() { return omp_get_max_threads() < 1; }"
            source.write_text(f"#ifdef _OPENMP\n{with_openmp}\n#else\nint main() {{}}\n#endif\n")
            try:
                objects = self.compiler.compile([str(source)], output_dir=folder, extra_postargs=[flag])
                self.compiler.link_executable(objects, "probe", output_dir=folder, extra_postargs=[flag])
            except Exception:  # the compiler's own classes of errors differ by platform and setuptools version
                return False
        return True

    def _compile(self, source: Path, flags: list[str]) -> str:
        decides = [*flags, *map(str, self.compiler.compiler_so)]
        kept = _store() / f"{source.stem}-{_fingerprint(decides, source)}.o"
        if not kept.exists():
            with tempfile.TemporaryDirectory(dir=_store()) as folder:
                # Absolute paths would be mirrored below the output folder: compile from the source's own folder name.
                [built] = self.compiler.compile([os.path.relpath(source)], output_dir=folder, extra_postargs=flags)
                os.replace(built, kept)
        return str(kept)

    def _link(self, ext: Extension, objects: list[str], arguments: list[str]) -> None:
        target = self.get_ext_fullpath(ext.name)
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        self.compiler.link_shared_object(objects, target, extra_postargs=arguments, target_lang="c++")


def _tag_of_platform(name: str) -> str:
    return name.lower().replace("-", "_").replace(".", "_").replace(" ", "_")


def find_nvcc() -> str | None:
    homes = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH")]
    candidates = [shutil.which("nvcc", path=str(Path(home, "bin"))) for home in homes if home]
    found = next(
        (c for c in [*candidates, shutil.which("nvcc"), shutil.which("nvcc", path="/usr/local/cuda/bin")] if c), None
    )
    return str(Path(found).resolve()) if found else None


def cuda_library_folders(nvcc: str) -> list[Path]:
    """Where its toolkit keeps libraries; asked of nvcc itself, which may be a script that calls another one."""
    dry = subprocess.run([nvcc, "-dryrun", "-E", "-x", "cu", os.devnull], capture_output=True, text=True).stderr
    here = next(
        (line.partition("_HERE_=")[2] for line in dry.splitlines() if "_HERE_=" in line), str(Path(nvcc).parent)
    )
    home = Path(here).parent
    return [home / "lib64", home / "lib", *sorted(home.glob("targets/*/lib")), home / "lib" / "x64"]


def compile_cuda(nvcc: str, source: Path, archs: list[str], folder: Path, extra: tuple[str, ...] = ()) -> str:
    """The object of one .cu file for the compute capabilities asked for, less those that this nvcc does not know."""
    known = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout.split()
    archs = [arch for arch in archs if f"compute_{arch}" in known]
    if not archs:
        raise RuntimeError(f"{nvcc} knows none of the compute capabilities asked for")
    command = [
        nvcc,
        "-c",
        str(source),
        "-std=c++17",
        "-O3",
        "--threads",
        "0",
        "-Xcompiler",
        "-fPIC,-fvisibility=hidden",
    ]
    command += [*extra, *(f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs)]
    command += [f"-gencode=arch=compute_{archs[-1]},code=compute_{archs[-1]}"]
    target = folder / f"{source.stem}-{_fingerprint(command, source)}.cuda.o"
    if not target.exists():
        staged = target.with_suffix(f".{os.getpid()}.o")
        done = subprocess.run([*command, "-o", str(staged)], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"nvcc failed on {source.name}: {(done.stderr or done.stdout)[-400:]}")
        os.replace(staged, target)
    return str(target)


def _one_line(error: Exception) -> str:
    """The command that failed is long; that a compiler failed, and on what, is what a user can act on."""
    command = getattr(error.__cause__, "cmd", None) or getattr(error, "cmd", None)
    if isinstance(command, list | tuple):
        return f"{command[0]} failed on {next((str(c) for c in command if str(c).endswith(SOURCES)), 'its input')}"
    return " ".join(str(error).split())[:300] or type(error).__name__


def _store() -> Path:
    """Where objects are kept between builds; a temporary folder where the source tree is read-only."""
    kept = ROOT / "build" / "native"
    try:
        kept.mkdir(parents=True, exist_ok=True)
        return kept
    except OSError:
        return Path(tempfile.mkdtemp(prefix="unrain-build-"))


def _fingerprint(command: list[str], source: Path) -> str:
    """Changes with the command line, the source, and what of ours it includes: no more decides what an object holds."""
    digest = hashlib.sha256("\0".join(command).replace(str(ROOT), "").encode())
    for path in sorted(_read_with(source)):
        digest.update(path.relative_to(CSRC).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _read_with(source: Path) -> set[Path]:
    """The file and all that it includes by a path in quotes, each of which is seen from the file it stands in."""
    found, todo = set(), [source]
    while todo:
        path = todo.pop()
        if path not in found:
            found.add(path)
            names = re.findall(r'^\s*#\s*include\s+"([^"]+)"', path.read_text(encoding="utf-8"), re.MULTILINE)
            todo += [(path.parent / name).resolve() for name in names]
    return found


def _replace(path: Path, text: str) -> None:
    staged = path.with_name(f"{path.name}.{os.getpid()}.new")
    staged.write_text(text)
    os.replace(staged, path)
