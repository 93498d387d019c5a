"""Average the weights of a run's checkpoints.

examples:
  wenet_osum average --exp_dir exp/x --out exp/x/final
  wenet_osum average --exp_dir exp/x --mode best --num 3 --out exp/x/final

exit status:
  0 done, 1 there are no such checkpoints or they do not fit together, 2 a fault of the arguments
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    """Choose, average, and say what was averaged. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="wenet_osum average", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exp_dir", required=True, help="folder of a training run")
    parser.add_argument("--mode", choices=("last", "best"), default="last", help="the newest checkpoints, or those with the lowest mean dev loss")
    parser.add_argument("--num", type=int, default=5, help="how many; fewer are taken when there are fewer")
    parser.add_argument("--out", required=True, help="model folder to write, e.g. exp/x/final")
    args = parser.parse_args(argv)
    try:
        from wenet_osum.train.average import LORA_NOTE, average, choose, has_lora

        chosen = choose(Path(args.exp_dir), args.mode, args.num)
        average(chosen, Path(args.out))
    except (ValueError, OSError) as error:
        print(f"average: {error}", file=sys.stderr)
        return 1
    print(f"{args.out}: mean of {len(chosen)} checkpoints ({args.mode}): {', '.join(path.name for path in chosen)}")
    if has_lora(chosen[-1]):
        print(LORA_NOTE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
