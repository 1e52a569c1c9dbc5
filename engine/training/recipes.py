"""How each network is trained: the papers' recipes, and short ones. Cards of the shipped weights say which they had.

Lengths are in steps. Where a paper counts epochs, the steps are those of its own data set and batch, given beside it.
"""

from dataclasses import dataclass, replace

from ..errors import UnrainError
from ..models import find


@dataclass(frozen=True)
class Schedule:
    """The learning rate over the run, as a factor of the recipe's `rate`."""

    kind: str = "linear"  # or "milestones", "decay", "cosine"
    milestones: tuple[int, ...] = ()  # steps at which the rate is multiplied by `factor`
    factor: float = 0.2
    every: int = 20_000  # "decay": one `factor` per so many steps, in jumps or smoothly
    smooth: bool = False
    floor: float = 0.0  # smallest rate, absolute; added when smooth
    warmup: int = 200  # "linear": it rises, is level and falls to zero over the last `fall` of the run, which is over
    fall: float = 0.8  # when its steps are or its minutes: a shared machine ends well, at the cost of repeatability


@dataclass(frozen=True)
class Recipe:
    objective: str  # a name in objectives.OBJECTIVES
    steps: int
    batch: int
    patch: int
    rate: float
    schedule: Schedule
    stages: tuple[tuple[int, int], ...] = ()  # (from step, T) of recurrent nets; none: the network's own T
    deep: float = 0.0  # weight of the earlier stages' images beside the last one's
    log: float = 0.0  # weight of each patch's log squared error, which makes dry and nearly dry patches count
    cross: float = 1.0  # weight of the cross-information loss of two views; at 1 they agree best when both are blurred
    perceptual: float = 0.0  # weight of the VGG19 term, used when --vgg names its weights
    clip: float = 0.0  # largest gradient norm, 0 for none
    ema: float = 0.0  # decay of the averaged weights, 0 for none
    optimiser: str = "adam"  # or "muon"
    frames: int = 0  # every second step is one of clips of so many frames; 0: single pictures only
    pool: int = 0  # with clips: how many of them are kept to be used again
    rain: str = "physical"  # what clean pictures are rained on with: a name in rain.DISTRIBUTIONS
    timid: float = 1.0  # factor on the first weights of the layers that write pictures; small: begin near the identity

    def stages_at(self, step: int) -> int | None:
        return next((count for start, count in reversed(self.stages) if step >= start), None)


def rate_at(recipe: Recipe, step: int, spent: float = 0.0) -> float:
    """The learning rate of a step: a pure function, so that a resumed run needs no scheduler state.

    `spent` is the share of the run's minutes that is gone.
    """
    plan, steps = recipe.schedule, max(recipe.steps, 1)
    if plan.kind == "milestones":
        return recipe.rate * plan.factor ** sum(step >= milestone for milestone in plan.milestones)
    if plan.kind == "decay" and plan.smooth:
        return recipe.rate * plan.factor ** (step / plan.every) + plan.floor
    if plan.kind == "decay":
        return max(recipe.rate * plan.factor ** (step // plan.every), plan.floor)
    if plan.kind == "cosine":
        from math import cos, pi

        return recipe.rate * 0.5 * (1 + cos(pi * min(step / steps, 1)))
    rise = min((step + 1) / max(plan.warmup, 1), 1)
    left = min((steps - step) / steps, 1 - spent)
    fall = min(left / max(plan.fall, 1e-9), 1)
    return recipe.rate * max(min(rise, fall), 0)


# Ren et al.: 100 epochs, rate x 0.2 at 30, 50, 80. RainTrainH: 1,254 pictures, 12 patches of 100 x 100 each.
_SRN = Recipe("ssim", 83_600, 18, 100, 1e-3, Schedule("milestones", (25_080, 41_800, 66_880), 0.2))
_BRN = Recipe("ssim", 125_400, 12, 100, 1e-3, Schedule("milestones", (37_620, 62_700, 100_320), 0.2))
_STAGEWISE = Recipe(
    "stagewise", 400_000, 10, 100, 1e-3, Schedule("milestones", (240_000, 320_000), 0.1), perceptual=1.0
)
# Jiang et al.: rate halved every 20,000 steps; 30 and 50 epochs of 13,712 pairs (about 137,000 patches) at batch 8.
_MSPFN = Recipe("charbonnier-edge", 510_000, 8, 96, 2e-4, Schedule("decay", factor=0.5, every=20_000, floor=1e-6))
_MLMCN = Recipe(
    "charbonnier", 850_000, 8, 96, 5e-4, Schedule("decay", factor=0.5, every=20_000, floor=1e-5), perceptual=0.05
)
# Cho et al.: 200 epochs; their steps are not printed, these are for 30 pairs of each of their 186 scenes at batch 16.
_TIMELAPSE = Recipe("timelapse", 70_000, 16, 256, 2e-4, Schedule("cosine"))

PAPER = {
    "srn_brn.SRN": _SRN,
    "srn_brn.BRN": _BRN,
    "stagewise.Stagewise": _STAGEWISE,
    "mspfn": _MSPFN,
    "mlmcn": _MLMCN,
    "timelapse": _TIMELAPSE,
}

# For hours on a processor or minutes on a GPU: small patches, few stages at first, an average of the weights. The rate
# falls most of the time and batches are of eight: at a level rate and four, noise of the gradient holds a network back.
_SHORT = Recipe("l1-ssim", 24_000, 8, 64, 1e-3, Schedule(), log=0.05, clip=1.0, ema=0.999)
_STAGES = ((0, 2), (1_500, 3), (5_000, 4))
SHORT = {
    "srn_brn.SRN": replace(_SHORT, stages=_STAGES, deep=0.3),
    "srn_brn.BRN": replace(_SHORT, stages=_STAGES, deep=0.3),
    "stagewise.Stagewise": replace(_SHORT, rate=2e-3, deep=0.1),
    "mspfn": replace(_SHORT, rate=5e-4),
    "mlmcn": replace(_SHORT, steps=400_000, batch=4, optimiser="muon", rain="close", timid=0.02),
    "wiper": replace(_SHORT, rate=6e-4, patch=96),
    "timelapse": replace(_SHORT, objective="timelapse", cross=5.0, batch=3, patch=96),
}
# For networks with a state: clips beside single pictures, the state carried through them.
VIDEO = {
    "wiper": Recipe(
        "video",
        400_000,
        8,
        96,
        1e-3,
        Schedule(),
        log=0.05,
        clip=1.0,
        ema=0.999,
        optimiser="muon",
        frames=4,
        pool=1000,
        rain="wide",
    ),
}
RECIPES = {"paper": PAPER, "short": SHORT, "video": VIDEO}


def recipe_for(model: str, kind: str = "short") -> Recipe:
    """The recipe of that kind for a network of the catalog."""
    if kind not in RECIPES:
        raise UnrainError(f"no recipe is called {kind!r}; there are {', '.join(RECIPES)}.")
    entry = find(model)
    there = {name: table.get(f"{entry.file}.{entry.cls}") or table.get(entry.file) for name, table in RECIPES.items()}
    if there[kind] is None:
        known = " and ".join(name for name, recipe in there.items() if recipe)
        raise UnrainError(f"{model} has no recipe {kind!r}; it has {known}.")
    return there[kind]
