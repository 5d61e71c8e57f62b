"""Run programs that say `import torch`: `python -m rushlight.as_torch train.py --lr 0.1`, or `install()` in one's own.

    python -m rushlight.as_torch (SCRIPT | -m MODULE | -c CODE | -) [ARGS…]

is `python …` with `torch` and every `torch.…` being rushlight, in the program and in the processes that it starts with
this Python (`_alias.py`, Note [Child processes]).  A PyTorch that is installed, too, is not loaded.
"""

from __future__ import annotations

import sys

from rushlight._alias import install as install
from rushlight._command import main

if __name__ == "__main__":
    main(sys.argv[1:])
