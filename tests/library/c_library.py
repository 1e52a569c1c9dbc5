"""libunrain, built from the objects of the Python package, and csrc/include/unrain.h for Python, by hand."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from ctypes import POINTER, Structure, c_char_p, c_float, c_int, c_longlong, c_size_t, c_ssize_t, c_ulonglong, c_void_p
from pathlib import Path

import numpy as np
from setuptools import Distribution

from unrain.csrc import build

ROOT = Path(__file__).resolve().parents[2]
STRICT = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror"]


def run(*command: str | Path, **options) -> subprocess.CompletedProcess:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command[0]}: {(done.stderr or done.stdout)[-3000:]}"
    return done


def missing_tools() -> list[str]:
    return [tool for tool in ("cmake", "cc", "c++", "pkg-config") if shutil.which(tool) is None]


def set_up(top: Path) -> Path:
    """Makes this folder one in which CMake compiles nothing of the core: the same objects are there."""
    for name in ("csrc", "pyproject.toml"):
        (top / name).symlink_to(ROOT / name)
    objects = build.BuildNative(Distribution()).core_objects()
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    run("cmake", "-S", "csrc", "-B", "build/libunrain", f"-DUNRAIN_OBJECTS={';'.join(objects)}", *generator, cwd=top)
    return top


def install(top: Path, target: Path) -> Path:
    run("cmake", "--build", "build/libunrain", "--parallel", str(os.cpu_count() or 1), cwd=top)
    run("cmake", "--install", "build/libunrain", "--prefix", target, cwd=top)
    return target


RGB8, BGR8, NV12 = range(3)
AUTO, F32, BF16, INT8 = range(4)
OK, LATE, PASSTHROUGH, REFUSED = range(4)


class Options(Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        *((name, c_int) for name in ("width", "height", "input", "output", "precision", "threads", "stages", "carry")),
        ("strength", c_float),
        ("deadline_us", c_longlong),
    ]


class Frame(Structure):
    _fields_ = [("data", c_void_p * 2), ("stride", c_ssize_t * 2)]


class Counters(Structure):
    _fields_ = [
        *((name, c_ulonglong) for name in ("frames", "ok", "late", "passthrough")),
        *((name, c_longlong) for name in ("p50_us", "p99_us", "max_us")),
    ]


class Library:
    def __init__(self, path: Path) -> None:
        c = ctypes.CDLL(str(path))
        c.unrain_default_options.restype = Options
        c.unrain_default_options.argtypes = [c_int, c_int]
        c.unrain_statistics.restype = Counters
        c.unrain_context_size.restype = c_size_t
        for name in ("version", "program_card", "reason"):
            getattr(c, f"unrain_{name}").restype = c_char_p
        for name in ("program_open", "program_read", "context_init", "context_open"):
            getattr(c, f"unrain_{name}").restype = c_void_p
        said = [c_char_p, c_size_t]
        c.unrain_program_open.argtypes = [c_char_p, *said]
        c.unrain_program_read.argtypes = [c_char_p, c_size_t, *said]
        c.unrain_context_size.argtypes = [c_void_p, POINTER(Options), *said]
        c.unrain_context_init.argtypes = [c_void_p, c_size_t, c_void_p, POINTER(Options), *said]
        c.unrain_context_open.argtypes = [c_void_p, POINTER(Options), *said]
        c.unrain_process.argtypes = [c_void_p, POINTER(Frame), POINTER(Frame)]
        for name in ("program_card", "program_close", "reason", "reset", "statistics", "context_close"):
            getattr(c, f"unrain_{name}").argtypes = [c_void_p]
        self.c = c
        self.message = ctypes.create_string_buffer(256)

    @property
    def said(self) -> str:
        return self.message.value.decode()

    def options(self, width: int, height: int, **changed) -> Options:
        options = self.c.unrain_default_options(width, height)
        for name, value in changed.items():
            setattr(options, name, value)
        return options

    def program(self, file: Path | bytes) -> int | None:
        if isinstance(file, bytes):
            return self.c.unrain_program_read(file, len(file), self.message, 256)
        return self.c.unrain_program_open(str(file).encode(), self.message, 256)

    def context(self, program: int, options: Options) -> Context:
        pointer = self.c.unrain_context_open(program, options, self.message, 256)
        assert pointer, self.said
        return Context(self, pointer, options)


class Context:
    def __init__(self, library: Library, pointer: int, options: Options) -> None:
        self.c, self.pointer, self.options = library.c, pointer, options

    def __enter__(self) -> Context:
        return self

    def __exit__(self, *_: object) -> None:
        self.c.unrain_context_close(self.pointer)

    def __call__(self, planes: list[np.ndarray], into: list[np.ndarray]) -> int:
        return self.c.unrain_process(self.pointer, frame_of(planes), frame_of(into))

    def derained(self, *planes: np.ndarray) -> list[np.ndarray]:
        """Of a frame whose format goes out as it came in."""
        into = [np.zeros_like(plane) for plane in planes]
        assert self(list(planes), into) == OK, self.reason
        return into

    @property
    def reason(self) -> str:
        return self.c.unrain_reason(self.pointer).decode()

    @property
    def counters(self) -> Counters:
        return self.c.unrain_statistics(self.pointer)


def frame_of(planes: list[np.ndarray]) -> Frame:
    """Rows may lie apart; what lies in a row may not."""
    frame = Frame()
    for k, plane in enumerate(planes):
        frame.data[k], frame.stride[k] = plane.ctypes.data, plane.strides[0]
    return frame
