"""Compute the states of a frozen encoder and keep them on disk.

Training with ``features: encoded`` does so at its start, too. Started again, it goes on where it
was. Nothing is computed that is there already.

examples:
  wenet_osum encode_states --config conf/train_2.yaml --data conf/data.yaml
  wenet_osum encode_states --config conf/train_2.yaml --data conf/data.yaml --num_jobs 8
  wenet_osum encode_states --config conf/train_2.yaml --data conf/data.yaml --whisper models/whisper

exit status:
  0 done, 1 a fault of data, model or disk, 2 a fault of the configuration, 85 interrupted by
  SIGTERM or SIGUSR1
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys

from wenet_osum import config
from wenet_osum.bin._arguments import add_phase, new_parser, read_phase
from wenet_osum.bin._exit import fault, leave

# Exit status of a run that was interrupted.
INTERRUPTED = 85


def main(argv: list[str] | None = None) -> int:
    """Parse, encode, and print faults as plain sentences. Returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    args = parse(argv)
    try:
        conf = read_phase(args)
        _check(conf)
        if args.num_jobs > 1:
            return _start_jobs(argv, args.num_jobs)
        return encode(conf)
    except config.ConfigError as error:
        return fault("encode_states", error, 2)
    except (ValueError, OSError) as error:
        return fault("encode_states", error, 1)


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = new_parser("encode_states", __doc__)
    add_phase(parser, example="cache.after=4 cache.variants=2")
    parser.add_argument(
        "--num_jobs",
        type=int,
        default=1,
        help="processes, each with a model of its own",
    )
    return parser.parse_args(argv)


def _start_jobs(argv: list[str], count: int) -> int:
    """Run the same command in ``count`` processes under torchrun; returns the exit status.

    Who asks this process to stop asks all of them.
    """
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
    # The last value of an option counts.
    own = ["-m", "wenet_osum.bin.encode_states", *argv, "--num_jobs", "1"]
    job = subprocess.Popen([sys.executable, *torchrun, *own])
    asked = []

    def pass_on(number: int, _frame: object) -> None:
        asked.append(number)
        job.terminate()

    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, pass_on)
    status = job.wait()
    # torchrun has a status of its own for it.
    return INTERRUPTED if asked and status else status


def _check(conf: config.TrainConfig) -> None:
    """Raise ConfigError for a configuration that reads no states or names no lists."""
    if conf.features != "encoded":
        raise config.ConfigError(
            f"features: {conf.features}: this configuration reads no states; set features: encoded"
        )
    if not conf.data:
        raise config.ConfigError("data: no lists are named; give --data a yaml with a train table")


def encode(conf: config.TrainConfig) -> int:
    """Compute the states a configuration needs; returns the exit status.

    Raises ConfigError for faulty lists, ValueError and OSError for faults of data, model and disk.
    """
    data = config.load(conf.data, config.DataConfig)
    from transformers.utils import logging

    from wenet_osum import dist
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
