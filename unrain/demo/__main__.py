"""python -m unrain.demo"""

import sys

from .show import main

sys.exit(main())
