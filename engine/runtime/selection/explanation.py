"""What `Engine.explain()` gives: a dict of plain JSON types that prints as text."""

from __future__ import annotations

from typing import Any


class Explanation(dict[str, Any]):
    """What runs, and why nothing else does.

    model, device, threads
    backend, precision   what runs; None where "auto" waits for the first picture
    fidelity_db          of it against the fp32 reference on a bundled picture; None for the reference itself
    milliseconds         its time in the trial of `trial_pixels` squared; None where there was no trial
    tile, halo           [height, width] of the last picture's tiles, and pixels; None where it was not cut
    others               {"backend precision": why it was not taken}
    notes                all else worth knowing: a precision that fell back, how tiles differ from the whole picture
    """

    def __str__(self) -> str:
        if self["backend"] is None:
            first = "not decided yet: the first picture decides, by its size"
        else:
            first = f"{self['backend']}, {self['precision']}, on {self['device']}"
        details = []
        if self["fidelity_db"] is not None:
            details.append(f"{self['fidelity_db']:.1f} dB to the fp32 reference")
        if self["milliseconds"] is not None:
            side = self["trial_pixels"]
            details.append(f"{self['milliseconds']:.1f} ms for {side} x {side} in the trial")
        if self["tile"] is not None:
            details.append(f"tiles of {' x '.join(map(str, self['tile']))} with a halo of {self['halo']}")
        lines = [", ".join([first, *details]), *self["notes"]]
        same: dict[tuple[str, str], list[str]] = {}  # a backend that cannot run at all has one line
        for name, reason in self["others"].items():
            backend, precision = name.split()
            same.setdefault((backend, reason), []).append(precision)
        lines += [f"  not {backend} {', '.join(kinds)}: {reason}" for (backend, reason), kinds in same.items()]
        return "\n".join(lines)
