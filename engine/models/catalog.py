"""Every network by name: where it is, how it is configured, and what the paper says about it. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One row: `engine/models/<file>.py` holds the class `cls`; `config` is what differs from its Config's defaults."""

    file: str
    cls: str
    config: Mapping[str, Any]
    paper: str
    summary: str
    parameters: int
    stages: int | None = None  # T of recurrent nets when none is asked for


_BILATERAL = "Single Image Deraining Using Bilateral Recurrent Network (Ren et al.)"
_STAGEWISE = "stage-wise deraining with densely connected dilation convolution blocks (DCDCB)"


def _srn(summary: str, parameters: int, **config: Any) -> Entry:
    return Entry("srn_brn", "SRN", config, _BILATERAL, summary, parameters, stages=6)


def _brn(summary: str, parameters: int, **config: Any) -> Entry:
    return Entry("srn_brn", "BRN", config, _BILATERAL, summary, parameters, stages=6)


CATALOG: dict[str, Entry] = {
    "srn": _srn("single recurrent network, residual mapping (also known as PReNet)", 168_963),
    "srn-direct": _srn("SRN that predicts the clean image directly", 168_963, residual=False),
    "srn-gru": _srn("SRN with a ConvGRU in place of the ConvLSTM, direct mapping", 150_499, cell="gru", residual=False),
    "srn-x": _srn("SRN that sees only the last estimate, direct mapping", 168_099, sees_rainy=False, residual=False),
    "srn-plus": _srn("SRN with 18 residual blocks", 409_411, blocks=18),
    "brn": _brn("bilateral recurrent network: a rain and an image branch that share hidden states", 375_526),
    "brn-gru": _brn("BRN with ConvGRUs", 320_166, cell="gru"),
    "crn": _brn("BRN without the shared hidden states", 301_798, rain_sees_image=False, image_sees_rain=False),
    "brn-r2x": _brn("BRN where only the image branch sees the rain branch", 338_662, rain_sees_image=False),
    "brn-x2r": _brn("BRN where only the rain branch sees the image branch", 338_662, image_sees_rain=False),
    "stagewise": Entry(
        "stagewise",
        "Stagewise",
        {},
        _STAGEWISE,
        "12 small stages that see all earlier results, then a refinement; the smallest network here",
        17_305,
        stages=12,
    ),
}
