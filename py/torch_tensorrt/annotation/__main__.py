"""``python -m torch_tensorrt.annotation``."""

import sys

from torch_tensorrt.annotation._cli import main

if __name__ == "__main__":
    sys.exit(main())
