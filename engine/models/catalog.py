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

_MULTI_SCALE = "Multi-Scale Progressive Fusion Network for Single Image Deraining (Jiang et al.)"
_MULTI_LEVEL = "Multi-Level Memory Compensation Network for Rain Removal via Divide-and-Conquer Strategy (Jiang et al.)"
_TIMELAPSE = "Memory-guided Image De-raining Using Time-Lapse Data (Cho et al.)"


def _srn(summary: str, parameters: int, **config: Any) -> Entry:
    return Entry("srn_brn", "SRN", config, _BILATERAL, summary, parameters, stages=6)


def _brn(summary: str, parameters: int, **config: Any) -> Entry:
    return Entry("srn_brn", "BRN", config, _BILATERAL, summary, parameters, stages=6)


def _mspfn(summary: str, parameters: int, **config: Any) -> Entry:
    return Entry("mspfn", "MSPFN", config, _MULTI_SCALE, summary, parameters)


def _mlmcn(summary: str, parameters: int, **config: Any) -> Entry:
    return Entry("mlmcn", "MLMCN", config, _MULTI_LEVEL, summary, parameters)


def _wiper(summary: str, parameters: int, **config: Any) -> Entry:
    return Entry("wiper", "Wiper", config, "this project's own, of no paper", summary, parameters)


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
    "mspfn": _mspfn("three scales fused step by step, M = 17 fine-fusion modules of N = 1 attention unit", 13_702_976),
    "mspfn-m30n1": _mspfn("MSPFN with M = 30, N = 1, the paper's best", 22_427_744, modules=30),
    "mspfn-m17n2": _mspfn("MSPFN with M = 17, N = 2", 17_582_240, units=2),
    "mspfn-m13n2": _mspfn("MSPFN with M = 13, N = 2", 13_984_928, modules=13, units=2),
    "mspfn-m10n3": _mspfn("MSPFN with M = 10, N = 3", 13_568_864, modules=10, units=3),
    "mspfn-m8n5": _mspfn("MSPFN with M = 8, N = 5", 14_964_896, modules=8, units=5),
    "mspfn-light": _mspfn("MSPFN with M = 5, N = 1, 32 channels wide", 1_656_656, modules=5, layout="light"),
    "mlmcn": _mlmcn("a memory subnetwork per pyramid level, 3, 5 and 8 blocks deep from 1/4 to full scale", 6_005_440),
    "mlmcn-n1": _mlmcn("MLMCN with the full-scale subnetwork alone", 2_742_784, depths=(8,)),
    "mlmcn-n2": _mlmcn("MLMCN with the half- and full-scale subnetworks", 4_633_536, depths=(5, 8)),
    "mlmcn-no-bcm": _mlmcn("MLMCN of memory modules alone", 6_035_136, depths=(9, 15, 24), block="rmm"),
    "mlmcn-no-rmm": _mlmcn("MLMCN of background compensation alone", 5_990_592, depths=(4, 8, 12), block="bcm"),
    "mlmcn-555": _mlmcn("MLMCN, 5 blocks on every scale", 5_672_256, depths=(5, 5, 5)),
    "mlmcn-385": _mlmcn("MLMCN, 3, 8 and 5 blocks", 6_005_440, depths=(3, 8, 5)),
    "mlmcn-835": _mlmcn("MLMCN, 8, 3 and 5 blocks", 6_005_440, depths=(8, 3, 5)),
    "mlmcn-853": _mlmcn("MLMCN, 8, 5 and 3 blocks", 6_005_440, depths=(8, 5, 3)),
    "timelapse": Entry(
        "timelapse",
        "Timelapse",
        {},
        _TIMELAPSE,
        "encoder and decoder around 20 learned rain memories, trained without clean pictures",
        818_115,
    ),
    "wiper-s": _wiper("wiper at half the width: 5 kMAC a pixel", 110_972, half=16, quarter=32, eighth=32, hidden=16),
    "wiper": _wiper("small network for video in real time that carries its own state: 18 kMAC a pixel", 432_364),
    "wiper-l": _wiper("wiper, deeper and wider: 40 kMAC a pixel", 1_334_220, eighth=128, hidden=64, quarter_pairs=2),
}
