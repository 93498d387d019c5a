"""Train one phase.

Under torchrun it trains with all its processes, alone with one. Started again with the same
command, a run goes on from its last checkpoint.

examples:
  wenet_osum train --config conf/train_1.yaml --data conf/data.yaml --exp_dir exp/1
  wenet_osum train --config conf/train_4_lora.yaml --exp_dir exp/4 --override optim.lr=1e-4 seed=3
  torchrun --standalone --nproc_per_node 8 -m wenet_osum.bin.train --config conf/train_4_lora.yaml \
    --data conf/data.yaml --exp_dir exp/4

exit status:
  0 done, 1 a fault of data or model, 2 a fault of the configuration, 3 a sanity check failed,
  85 interrupted by SIGTERM or SIGUSR1 and saved (torchrun turns 85 into 1; the file REQUEUE in
  exp_dir tells the same)
"""

from __future__ import annotations

import argparse

from wenet_osum import config
from wenet_osum.bin._exit import fault, leave


def main(argv: list[str] | None = None) -> int:
    """Parse, train, and say faults as plain sentences. Returns the exit status."""
    args = parse(argv)
    try:
        conf = configured(args)
        from transformers.utils import logging

        from wenet_osum.train.loop import train

        logging.disable_progress_bar()  # its bars would tear ours
        return train(conf, args.exp_dir)
    except config.ConfigError as error:
        return fault("train", error, 2)
    except (ValueError, OSError) as error:
        return fault("train", error, 1)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="wenet_osum train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--config", required=True, help="yaml of the phase (wenet_osum/config/tables.py)")
    add("--data", help="yaml of the data (DataConfig); replaces data: of the configuration")
    add("--exp_dir", required=True, help="folder of checkpoints and logs")
    add("--whisper", help="folder or hub name, in the place of model.whisper where that is named")
    add("--llm", help="the same for model.llm; a phase that begins from another needs neither")
    add(
        "--override",
        nargs="*",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="settings, e.g. optim.lr=1e-4 max_steps=100; the later wins",
    )
    return parser.parse_args(argv)


def configured(args: argparse.Namespace) -> config.TrainConfig:
    """Read the configuration with what the command line sets in it."""
    overrides = [*args.override]
    if args.data:
        overrides.append(f"data={args.data}")
    conf = config.load(args.config, config.TrainConfig, overrides)

    # A recipe gives both names to all phases; those that begin from a folder of ours load neither.
    if args.whisper and conf.model.whisper:
        conf.model.whisper = args.whisper
    if args.llm and conf.model.llm:
        conf.model.llm = args.llm
    return conf


if __name__ == "__main__":
    leave(main())
