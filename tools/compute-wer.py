#!/usr/bin/env python3
"""Word or character error rate of 'key text' files, told as WeNet's tool tells it."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wenet_osum.score.compute_wer import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
