"""Whose turn it is, and how many threads it may use: what lets one Engine be called from many threads."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ... import kernels


class Turns:
    """One call after the other, on a GPU too, where what a call has launched may still run when it returns."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._lock = threading.RLock()
        self._stream: torch.cuda.Stream | None = None  # of the call before

    @contextmanager
    def one(self) -> Iterator[None]:
        with self._lock:
            if self._device.type != "cuda":
                yield
                return
            stream = torch.cuda.current_stream(self._device)
            if self._stream is not None and self._stream != stream:
                stream.wait_stream(self._stream)
            try:
                yield
            finally:
                self._stream = stream


@contextmanager
def limited_to(threads: int | None) -> Iterator[None]:
    """At most this many threads in PyTorch and in our own kernels; None leaves both as they are.

    Holds for the thread that enters it, and changes nothing for the others.
    """
    if threads is None:
        yield
        return
    before = torch.get_num_threads()
    give_back = _set_own_count(threads)
    try:
        with kernels.threads(threads):
            yield
    finally:
        give_back(before)


def _set_own_count(count: int) -> Callable[[int], object]:
    """Sets how many threads PyTorch uses for this thread; returns what sets it back.

    `torch.set_num_threads` sets that number too, and with it the one that every thread starts from which meets PyTorch
    later and then keeps. It only serves where the libraries below it are out of reach.
    """
    libraries = _libraries()
    if libraries is None:
        torch.set_num_threads(count)
        return torch.set_num_threads
    openmp, mkl = libraries
    mkl_before = mkl(count)

    def give_back(before: int) -> None:
        openmp(before)
        mkl(mkl_before)

    openmp(count)
    return give_back


@cache
def _libraries() -> tuple[Callable[[int], Any], Callable[[int], int]] | None:
    """Setters of this thread's count in the OpenMP and the MKL that PyTorch uses; None where they cannot be found."""
    name = "libtorch_cpu.dylib" if sys.platform == "darwin" else "libtorch_cpu.so"
    try:
        # Its symbols are looked for in the libraries it was linked with, too, so that this is the OpenMP it calls.
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / name))
        openmp: Any = library.omp_set_num_threads
    except (OSError, AttributeError):
        return None
    # The C function. The same name in small letters is the Fortran one, which takes an address.
    mkl: Any = getattr(library, "MKL_Set_Num_Threads_Local", lambda count: 0)
    return openmp, mkl
