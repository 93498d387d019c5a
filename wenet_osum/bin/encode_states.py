"""Compute the states of a frozen encoder and keep them on disk.

Training with ``features: encoded`` does so at its start, too. Started again, it goes on where it
was. Nothing is computed that is there already.

examples:
  wenet_osum encode_states --config conf/train_2.yaml --data conf/data.yaml
  wenet_osum encode_states --config conf/train_2.yaml --data conf/data.yaml --num_jobs 8

exit status:
  0 done, 1 a fault of data, model or disk, 2 a fault of the configuration, 85 interrupted by
  SIGTERM or SIGUSR1
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from wenet_osum import config
from wenet_osum.bin._exit import fault, leave

INTERRUPTED = 85


def main(argv: list[str] | None = None) -> int:
    """Parse, encode, and say faults as plain sentences. Returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    args = _parse(argv)
    if args.num_jobs > 1:
        return _start_jobs(argv, args.num_jobs)
    overrides = [*args.override, *([f"data={args.data}"] if args.data else [])]
    try:
        return _encode(config.load(args.config, config.TrainConfig, overrides))
    except config.ConfigError as error:
        return fault("encode_states", error, 2)
    except (ValueError, OSError) as error:
        return fault("encode_states", error, 1)


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="wenet_osum encode_states",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--config", required=True, help="yaml of the phase, with features: encoded")
    add("--data", help="yaml of the data (DataConfig); replaces data: of the configuration")
    add("--num_jobs", type=int, default=1, help="processes, each with a model of its own")
    override = {"nargs": "*", "action": "extend", "default": [], "metavar": "NAME=VALUE"}
    add("--override", **override, help="e.g. cache.after=4 cache.variants=2")
    return parser.parse_args(argv)


def _start_jobs(argv: list[str], count: int) -> int:
    """Run the same command in ``count`` processes under torchrun."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
    # the last value of an option counts
    own = ["-m", "wenet_osum.bin.encode_states", *argv, "--num_jobs", "1"]
    return subprocess.run([sys.executable, *torchrun, *own], check=False).returncode


def _encode(conf: config.TrainConfig) -> int:
    if conf.features != "encoded":
        raise config.ConfigError(
            f"features: {conf.features}: this configuration reads no states; set features: encoded"
        )
    if not conf.data:
        raise config.ConfigError("data: no lists are named; give --data a yaml with a train table")
    data = config.load(conf.data, config.DataConfig)
    from transformers.utils import logging

    from wenet_osum.train import dist
    from wenet_osum.train.encode import encode_all
    from wenet_osum.train.start import Interrupt

    logging.disable_progress_bar()
    world = dist.start(conf.threads)
    say = print if world.is_rank_zero else _nothing
    try:
        with Interrupt() as interrupt:
            ended = encode_all(conf, data, world, say, lambda: interrupt.seen)
    finally:
        dist.stop()
    return 0 if ended else INTERRUPTED


def _nothing(line: str) -> None:
    """Stand in for ``print`` on all processes but the first."""


if __name__ == "__main__":
    leave(main())
