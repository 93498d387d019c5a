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

from wenet_osum.bin._arguments import new_parser


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("average", __doc__)
    add = parser.add_argument
    add("--exp_dir", required=True, help="folder of a training run")
    add(
        "--mode",
        choices=("last", "best"),
        default="last",
        help="the newest checkpoints, or those with the lowest mean dev loss",
    )
    add("--num", type=int, default=5, help="how many; fewer are taken when there are fewer")
    add("--out", required=True, help="model folder to write, e.g. exp/x/final")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Choose, average, and print what was averaged. Returns the exit status."""
    args = parse(argv)
    try:
        lines = run(args)
    except (ValueError, OSError) as error:
        print(f"average: {error}", file=sys.stderr)
        return 1
    print(*lines, sep="\n")
    return 0


def run(args: argparse.Namespace) -> list[str]:
    """Average the checkpoints; returns lines to print.

    Raises ValueError and OSError for checkpoints that are not there or do not fit together.
    """
    from wenet_osum.train.average import LORA_NOTE, average, choose, has_lora

    chosen = choose(Path(args.exp_dir), args.mode, args.num)
    average(chosen, Path(args.out))
    names = ", ".join(path.name for path in chosen)
    lines = [f"{args.out}: mean of {len(chosen)} checkpoints ({args.mode}): {names}"]
    if has_lora(chosen[-1]):
        lines.append(LORA_NOTE)
    return lines


if __name__ == "__main__":
    sys.exit(main())
