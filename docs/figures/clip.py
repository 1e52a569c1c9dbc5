"""The README's clip: the demo's slow pan in generated rain, and what the shipped weights make of it.

    python docs/figures/clip.py [MODEL]

Photograph (credits in engine/pictures/CREDITS.md) and rain are those of `make demo`.
"""

import sys
from pathlib import Path

from PIL import Image

from unrain import Engine
from unrain.cli.run_picture import side_by_side
from unrain.demo.show import FPS, derained, shot

MODEL = "wiper"

name = sys.argv[1] if sys.argv[1:] else MODEL
_, rainy = shot()
dry, _ = derained(rainy, name, Engine(name, backend="eager", precision="fp32", device="cpu"))
first, *others = [Image.fromarray(side_by_side(*pair)) for pair in zip(rainy, dry, strict=True)]
place = Path(__file__).with_name("clip.webp")
first.save(place, save_all=True, append_images=others, duration=1000 // FPS, loop=0, quality=75, method=6)
