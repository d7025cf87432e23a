"""`make demo`. Ctrl-C ends it at any moment, while it is loading too: so nothing is loaded before that is arranged."""

from __future__ import annotations

import os
import signal
import sys

if __name__ == "__main__":
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from demo.walk import main

    sys.exit(main())
