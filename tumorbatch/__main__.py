"""`python -m tumorbatch`: the same as the `tumorbatch` command."""

import os
import sys

# `python -m` looks into the current folder first, where a `signal.py` or `queue.py` may lie. A checkout
# that is not installed needs it there: then this package comes from it.
_checkout = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if not sys.flags.safe_path and sys.path[0] not in ("", _checkout):
    del sys.path[0]

from tumorbatch.cli.main import main  # noqa: E402 - after what it depends on

if __name__ == "__main__":
    main()
