"""Where this checkout is; whoever imports this can import its `tests` too, which is no installed package."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))
