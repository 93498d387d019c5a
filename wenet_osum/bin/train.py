"""Train one phase.

Under torchrun it trains with all its processes, alone with one. Started again with the same command, a run goes on from its last
checkpoint.

examples:
  wenet_osum train --config conf/train_1.yaml --data conf/data.yaml --exp_dir exp/1
  wenet_osum train --config conf/train_4_lora.yaml --data conf/data.yaml --exp_dir exp/4 --override optim.lr=1e-4
  torchrun --standalone --nproc_per_node 8 -m wenet_osum.bin.train --config conf/train_4_lora.yaml --data conf/data.yaml --exp_dir exp/4

exit status:
  0 done, 1 a fault of data or model, 2 a fault of the configuration, 3 a sanity check failed, 85 interrupted by SIGTERM or SIGUSR1 and saved
  (torchrun turns 85 into 1; the file REQUEUE in exp_dir tells the same)
"""

from __future__ import annotations

import argparse

from wenet_osum import config
from wenet_osum.bin._exit import fault, leave


def main(argv: list[str] | None = None) -> int:
    """Parse, train, and say faults as plain sentences. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="wenet_osum train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="yaml of the phase (wenet_osum/config/tables.py: TrainConfig)")
    parser.add_argument("--data", help="yaml of the data (DataConfig); replaces data: of the configuration")
    parser.add_argument("--exp_dir", required=True, help="folder of checkpoints and logs")
    parser.add_argument("--override", action="append", default=[], metavar="NAME=VALUE", help="e.g. optim.lr=1e-4; may be repeated")
    args = parser.parse_args(argv)
    overrides = [*args.override, *([f"data={args.data}"] if args.data else [])]
    try:
        conf = config.load(args.config, config.TrainConfig, overrides)
        from transformers.utils import logging

        from wenet_osum.train.loop import train

        logging.disable_progress_bar()  # its bars would tear ours
        return train(conf, args.exp_dir)
    except config.ConfigError as error:
        return fault("train", error, 2)
    except (ValueError, OSError) as error:
        return fault("train", error, 1)


if __name__ == "__main__":
    leave(main())
