"""The README's picture: a bundled photograph in generated rain, and what the shipped weights make of it.

    python docs/figures/before_after.py [MODEL]

Photograph and rain are those of `make demo` (credits in engine/pictures/CREDITS.md).
"""

import sys
from pathlib import Path

import numpy as np

from unrain import Engine
from unrain.cli.run_picture import side_by_side
from unrain.engine.images import read_image, write_image
from unrain.engine.pictures import FOLDER, SHOWERS
from unrain.engine.training.rain import add_rain, shower

MODEL = "wiper"
file, severity, seed = SHOWERS[0]
rainy = np.asarray(add_rain(read_image(FOLDER / file), shower(severity, seed), seed))
dry = Engine(sys.argv[1] if sys.argv[1:] else MODEL, backend="eager", precision="fp32")(rainy)
write_image(Path(__file__).with_name("before-after.jpg"), side_by_side(rainy, dry), quality=88)
