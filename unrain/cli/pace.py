"""Did a run keep up with its clip? Where it did not: by how much, and which network would."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..engine.runtime import Engine

# Thousands of multiplications per pixel of the networks whose weights are shipped, at their number of stages.
COSTS = {
    "brn": 1499.0,
    "mlmcn-n1": 1411.0,
    "srn": 674.0,
    "mspfn-light": 256.0,
    "timelapse": 224.0,
    "stagewise": 167.0,
    "wiper": 17.8,
    "wiper-s": 5.1,
}
_ENOUGH = 0.95  # of the clip's own rate: opening and closing the files is in the time, too


def pace(engine: "Engine", frames: int, seconds: float, rate: float) -> dict[str, Any]:
    """Frames a second beside the clip's; of a run that was slower, the network that would keep up, if one would."""
    reached = frames / seconds
    answer: dict[str, Any] = {"frames_per_second": round(reached, 2), "clip_frames_per_second": round(rate, 3)}
    if reached < _ENOUGH * rate:
        answer["would_keep_up"] = lighter(cost(engine.model), rate / reached)
    return answer


def lighter(thousands: float, times: float) -> str | None:
    """The most thorough network that takes at most a `times`-th of these multiplications.

    That is an estimate: a network of a tenth of them takes more than a tenth of the time.
    """
    return next((name for name, each in COSTS.items() if each <= thousands / times), None)


def cost(model: Any) -> float:
    """Thousands of multiplications per pixel."""
    from ..engine.benchmark.limits import operations

    side = 64  # any size that no network here pads
    return operations(model, side, side) / 2 / side**2 / 1e3


def in_words(video: dict[str, Any]) -> str:
    """The fields of `pace`, as far as they fit on the line of the result."""
    reached, rate = video["frames_per_second"], video["clip_frames_per_second"]
    said = f"{reached:.1f} frames/s"
    if "would_keep_up" not in video:
        return said
    name = video["would_keep_up"]
    advice = f"by its operations {name} would keep up" if name else "no network here is that much lighter"
    return f"{said}, {rate / max(reached, 0.01):.1f} times slower than the clip's {rate:g}; {advice}"
