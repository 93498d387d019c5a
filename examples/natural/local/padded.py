#!/usr/bin/env python3
"""A model folder that differs from another in nothing but the encoder's pad_s: its files are links.

    python local/padded.py --pad_s 10 exp/2_align/final exp/pads/10/model

The answers of both say what silence behind the speech is worth.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from wenet_osum.files import write_text


def main() -> None:
    """Make the folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pad_s", type=float, required=True, help="seconds")
    parser.add_argument("model", type=Path, help="model folder")
    parser.add_argument("out", type=Path, help="folder to make")
    args = parser.parse_args()

    args.out.mkdir(parents=True, exist_ok=True)
    for file in args.model.iterdir():
        link = args.out / file.name
        link.unlink(missing_ok=True)
        link.symlink_to(file.resolve())

    # The settings alone are a file of their own.
    path = args.out / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    encoder = config.get("encoder", config)  # phase 1 has nothing beside it
    encoder["pad_s"] = args.pad_s
    path.unlink()
    write_text(path, json.dumps(config, indent=1))


if __name__ == "__main__":
    main()
