"""Train one phase.

Under torchrun it trains with all its processes, alone with one. Started again with the same
command, a run goes on from its last checkpoint.

examples:
  wenet_osum train --config conf/train_1.yaml --data conf/data.yaml --exp_dir exp/1
  wenet_osum train --config conf/train_4_lora.yaml --exp_dir exp/4 --override optim.lr=1e-4 seed=3
  torchrun --standalone --nproc_per_node 8 -m wenet_osum.bin.train \\
    --config conf/train_4_lora.yaml --data conf/data.yaml --exp_dir exp/4

exit status:
  0 done, 1 a fault of data or model, 2 a fault of the configuration, 3 a sanity check failed,
  85 interrupted by SIGTERM, SIGUSR1 or a file STOP in exp_dir, and saved (torchrun turns 85 into
  1; the file REQUEUE in exp_dir tells the same)
"""

from __future__ import annotations

import argparse

from wenet_osum.bin._arguments import add_phase, new_parser, read_phase
from wenet_osum.bin._exit import fault, leave
from wenet_osum.config import ConfigError


def main(argv: list[str] | None = None) -> int:
    """Parse, train, and print faults as plain sentences. Returns the exit status."""
    args = parse(argv)
    try:
        conf = read_phase(args)
        from transformers.utils import logging

        from wenet_osum.train.loop import train

        # Its bars would tear ours.
        logging.disable_progress_bar()
        return train(conf, args.exp_dir)
    except ConfigError as error:
        return fault("train", error, 2)
    except (ValueError, OSError) as error:
        return fault("train", error, 1)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("train", __doc__)
    add_phase(parser, example="optim.lr=1e-4 max_steps=100")
    parser.add_argument("--exp_dir", required=True, help="folder of checkpoints and logs")
    return parser.parse_args(argv)


if __name__ == "__main__":
    leave(main())
