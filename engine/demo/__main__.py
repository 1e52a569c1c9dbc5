"""python -m unrain.engine.demo"""

import sys

from .show import main

sys.exit(main())
