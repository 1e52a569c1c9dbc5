"""An ONNX graph to an engine: strongly typed, so that every layer computes in the precision the graph gives it.

TensorRT 11 knows no other way; earlier ones are told. What was parsed is read back before it is built: a graph that
lost its half precision on the way would build without complaint, at half the speed.
"""

from __future__ import annotations

import signal
import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ...engine.errors import UnrainError
from ...engine.files import write
from ...engine.runtime import cache
from ..adapter import Adapter

if TYPE_CHECKING:
    import onnx

Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class Profile:
    """The pictures an engine takes: any size from `smallest` to `largest`; it is fastest at `best`."""

    smallest: Size = (64, 64)
    best: Size = (720, 1280)
    largest: Size = (1088, 1920)

    @classmethod
    def of(cls, smallest: Size | None, largest: Size | None) -> Profile:
        """The usual one within these limits."""
        low, high = smallest or cls.smallest, largest or cls.largest
        if min(low) < 8 or low[0] > high[0] or low[1] > high[1]:
            raise UnrainError(f"sizes must go from 8x8 up, the smallest first; got {_by(low)} to {_by(high)}")
        best = tuple(max(a, min(b, c)) for a, b, c in zip(low, cls.best, high, strict=True))
        return cls(low, (best[0], best[1]), high)


@dataclass(frozen=True)
class Built:
    engine: bytes
    seconds: float
    layers: int
    half: list[str]  # convolutions that compute in half precision
    single: list[str]  # convolutions that do not
    shapes: dict[str, list[list[int]]]  # of each open input: smallest, best, largest


def build(
    graph: onnx.ModelProto,
    adapter: Adapter,
    targets: Sequence[str],
    profile: Profile,
    single: Collection[str] | None = None,
    workspace: int | None = None,
) -> Built:
    """Build the engine.

    single     the convolutions that may compute in single precision; None: all
    workspace  bytes of GPU memory that the engine may use beside its weights, as much as there is when left out
    """
    library = adapter.library()
    started = time.monotonic()
    logger, complaints = _listener(library)
    builder = _made(library.Builder, logger, complaints)
    network = builder.create_network(_strongly_typed(library))
    parser = library.OnnxParser(network, logger)
    if not parser.parse(graph.SerializeToString()):
        raise UnrainError(f"{adapter.title} does not take this graph: {parser.get_error(0).desc()}")
    half, kept = read_back(library, network, graph, single)
    config = builder.create_builder_config()
    adapter.aim(config, targets)
    config.clear_flag(library.BuilderFlag.TF32)  # fp32 is asked for where ten bits are not enough
    if workspace is not None:
        config.set_memory_pool_limit(library.MemoryPoolType.WORKSPACE, workspace)
    shapes = _set_profile(builder, config, graph, profile)
    keep_timings = _timing_cache(config, adapter, library.__version__, targets) if adapter.timing_cache else None
    with _interruptible() as interrupted, _progress(library, interrupted) as monitor:
        config.progress_monitor = monitor
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        limit = f" with {workspace:,} bytes of workspace" if workspace is not None else ""
        raise UnrainError(f"{adapter.title} could not build this engine{limit}: {_said(complaints)}")
    if keep_timings is not None:
        keep_timings()
    return Built(bytes(plan), time.monotonic() - started, network.num_layers, half, kept, shapes)


def read_back(
    library: ModuleType, network: Any, graph: onnx.ModelProto, single: Collection[str] | None
) -> tuple[list[str], list[str]]:
    """The convolutions of a parsed network that compute in half precision, and the others; raise for a wrong one."""
    kinds = (library.LayerType.CONVOLUTION, library.LayerType.DECONVOLUTION)
    layers = [layer for layer in map(network.get_layer, range(network.num_layers)) if layer.type in kinds]
    written = sum(node.op_type in ("Conv", "ConvTranspose") for node in graph.graph.node)
    if len(layers) != written:
        raise UnrainError(f"{len(layers)} convolutions were read of the {written} in the graph; nothing is built")
    by_half: dict[bool, list[str]] = {True: [], False: []}
    for layer in layers:
        ports = (layer.get_input(0).dtype, layer.get_output(0).dtype)
        by_half[all(kind == library.DataType.HALF for kind in ports)].append(layer.name)
    wrong = [] if single is None else [name for name in by_half[False] if name not in single]
    if wrong:
        raise UnrainError(
            f"{len(wrong)} of {written} convolutions would not compute in half precision, {wrong[0]} the first; "
            "nothing is built"
        )
    return by_half[True], by_half[False]


def _strongly_typed(library: ModuleType) -> int:
    flag = getattr(library.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _set_profile(builder: Any, config: Any, graph: onnx.ModelProto, sizes: Profile) -> dict[str, list[list[int]]]:
    """Every input with open sizes gets its three shapes; batch is closed by then."""
    from ...engine.runtime.backends.graph import open_sides

    profile = builder.create_optimization_profile()
    shapes = {}
    for port in graph.graph.input:
        dims = port.type.tensor_type.shape.dim
        if not any(dim.dim_param for dim in dims):
            continue
        triple = [
            [open_sides(*size).get(dim.dim_param, dim.dim_value) for dim in dims]
            for size in (sizes.smallest, sizes.best, sizes.largest)
        ]
        profile.set_shape(port.name, *triple)
        shapes[port.name] = triple
    if shapes:
        config.add_optimization_profile(profile)
    return shapes


def _timing_cache(config: Any, adapter: Adapter, version: str, targets: Sequence[str]) -> Any:
    """Take up what earlier builds measured on this GPU; the answer writes it back, this build's part included."""
    path = cache.folder() / f"{adapter.module}-{version}-{'-'.join(targets)}.timings"
    try:
        known = path.read_bytes()
    except OSError:
        known = b""
    timings = config.create_timing_cache(known) or config.create_timing_cache(b"")
    config.set_timing_cache(timings, ignore_mismatch=False)
    return lambda: write(path, bytes(config.get_timing_cache().serialize()))


def _listener(library: ModuleType) -> tuple[Any, list[str]]:
    """A logger that keeps the errors for our own message, and says nothing itself."""
    complaints: list[str] = []

    class Listener(library.ILogger):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            library.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (library.ILogger.Severity.INTERNAL_ERROR, library.ILogger.Severity.ERROR):
                complaints.append(message)

    return Listener(), complaints


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C is noted, and raised at the end: the library loses what is raised in its callbacks, and builds on."""
    noted: list[int] = []
    in_main = threading.current_thread() is threading.main_thread()  # elsewhere no signal arrives
    before = signal.getsignal(signal.SIGINT)
    if not in_main or not callable(before):  # ignored
        yield lambda: False
        return
    signal.signal(signal.SIGINT, lambda number, _: noted.append(number))
    try:
        yield lambda: bool(noted)
    finally:
        signal.signal(signal.SIGINT, before)
    if noted:
        before(signal.SIGINT, None)


def _progress(library: ModuleType, interrupted: Callable[[], bool]) -> Any:
    """A bar per phase on a terminal's stderr; leave the `with` block after the build."""
    from ...engine.console import progress_bar

    bar = progress_bar()

    class Monitor(library.IProgressMonitor):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            library.IProgressMonitor.__init__(self)
            self.tasks: dict[str, Any] = {}

        def __enter__(self) -> Monitor:
            bar.start()
            return self

        def __exit__(self, *error: object) -> None:
            bar.stop()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.tasks[phase_name] = bar.add_task(phase_name, total=num_steps)

        def phase_finish(self, phase_name: str) -> None:
            if phase_name in self.tasks:
                bar.remove_task(self.tasks.pop(phase_name))

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self.tasks:
                bar.update(self.tasks[phase_name], completed=step + 1)
            return not interrupted()

    return Monitor()


def _made(factory: Any, logger: Any, complaints: list[str]) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return factory(logger)
    except TypeError as error:  # pybind11: the factory gave nothing
        raise UnrainError(f"TensorRT does not start here: {_said(complaints)}") from error


def _said(complaints: Sequence[str]) -> str:
    return " ".join((complaints[0] if complaints else "it does not say why").split())[:300]


def _by(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
