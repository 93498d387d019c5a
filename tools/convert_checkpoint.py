#!/usr/bin/env python3
"""`wenet_osum convert` under the name that users of published checkpoints look for.

It turns .pt files of OSUM, WeNet and openai-whisper into model folders and back.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wenet_osum.bin.convert import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
