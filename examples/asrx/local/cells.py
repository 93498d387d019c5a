"""Train, decode and score the cells that are left.

    python local/cells.py --shared exp/shared --out exp/cells --results exp/results --hours 8
    python local/cells.py --shared exp/shared --out exp/cells --results exp/results --xs ser

Started again with the same command it goes on: a cell that has a result is not run again. Several
processes, also on several machines with one file system, may work on the same folder: a cell
belongs to the one that locks it. Exit status: 0 nothing is left or the limit is reached, 1 a fault,
85 interrupted by SIGTERM or SIGUSR1 and saved.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from arms import ARMS, SEEDS, TOGETHER, XS, Cell, cells, mixture
from result import encoder_hash, result_of
from results import check_beginning, path_of

from wenet_osum import config
from wenet_osum.bin import train
from wenet_osum.files import write_text

CONFS = Path(__file__).resolve().parents[1] / "conf"
INTERRUPTED = 85


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parser().parse_args(argv)
    known = cells(tuple(args.seeds))
    todo = [cell for cell in known if cell.x in args.xs and cell.arm in args.arms]
    try:
        check_beginning(args.results, seeds_to_run(todo, args), encoder_hash(args.shared))
        status = run_all(todo, args)
    except (ValueError, OSError) as error:
        print(f"cells.py: {error}", file=sys.stderr)
        return 1
    if not status:
        print(f"cells.py: {finished(args.results, todo)} of {len(todo)} cells are finished")
    return status


def seeds_to_run(todo: list[Cell], args: argparse.Namespace) -> list[int]:
    """Return the seeds of cells that have no result yet."""
    seeds = {cell.seed for cell in todo if not path_of(args.results, cell).exists()}
    return sorted(seeds)


def run_all(todo: list[Cell], args: argparse.Namespace) -> int:
    """Run the cells that nobody else runs, within the limits.

    Returns the exit status of a training that was interrupted, else 0.
    """
    begun = time.monotonic()
    done = 0
    for cell in todo:
        enough = args.cells is not None and done >= args.cells
        late = args.hours is not None and time.monotonic() - begun >= 3600 * args.hours
        if enough or late:
            break
        folder = args.out / cell.name
        with claimed(folder) as ours:
            if not ours or path_of(args.results, cell).exists():
                continue
            status = run(cell, args)
            if status:
                return status
            done += 1
            seconds = (time.monotonic() - begun) / done
            print(
                f"cells.py: {cell.name} is finished, {done} now, {finished(args.results, todo)} of "
                f"{len(todo)} in all, {seconds:.0f} s per cell",
                flush=True,
            )
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    args = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    args.add_argument(
        "--shared",
        type=Path,
        required=True,
        help="the model that every cell begins from",
    )
    args.add_argument("--out", type=Path, required=True, help="folder of the cells")
    args.add_argument(
        "--results", type=Path, required=True, help="folder of the results, a file per cell"
    )
    args.add_argument("--data", default="data", help="folder of the lists (data)")
    args.add_argument("--dtype", default="float32", help="in which answers are computed")
    args.add_argument("--cells", type=int, help="stop after so many cells")
    args.add_argument("--hours", type=float, help="begin no cell after so many hours")
    args.add_argument(
        "--xs",
        nargs="+",
        default=[*XS, TOGETHER],
        choices=[*XS, TOGETHER],
        help="only cells of these X",
    )
    args.add_argument(
        "--arms", nargs="+", default=[*ARMS], choices=[*ARMS], help="only cells of these arms"
    )
    args.add_argument(
        "--seeds", nargs="+", type=int, default=[*SEEDS], help="only cells of these seeds"
    )
    args.add_argument(
        "--override",
        nargs="*",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="setting of the training, e.g. max_steps=2",
    )
    return args


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Tell whether this process has the cell to itself.

    The lock ends with the process, however that ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def run(cell: Cell, args: argparse.Namespace) -> int:
    """Train the cell, from its last checkpoint if it has one, decode and score it.

    Returns the exit status of the training.
    """
    folder = args.out / cell.name
    data = mixture(cell, args.data)
    config.save(data, folder / "data.yaml")
    conf = CONFS / ("train_cell_encoder.yaml" if cell.trains_encoder else "train_cell.yaml")
    settings = [f"seed={cell.seed}", f"model.init_from={args.shared}", *args.override]
    command = [
        f"--config={conf}",
        f"--data={folder / 'data.yaml'}",
        f"--exp_dir={folder / 'train'}",
    ]
    status = train.main([*command, "--override", *settings])
    if status and status != INTERRUPTED:
        raise ValueError(
            f"cell {cell.name}: training ended with status {status}; {folder}/train/train.log "
            "says why"
        )
    if status:
        return status

    found = result_of(cell, folder, args)
    args.results.mkdir(parents=True, exist_ok=True)
    write_text(path_of(args.results, cell), json.dumps(found, ensure_ascii=False) + "\n")
    # The weights of a cell are not needed any more.
    for checkpoint in (folder / "train").glob("step_*"):
        shutil.rmtree(checkpoint)
    shutil.rmtree(folder / "train/final")
    return 0


def finished(results: Path, among: list[Cell]) -> int:
    """Count the cells that have a result."""
    return sum(path_of(results, cell).exists() for cell in among)


if __name__ == "__main__":
    sys.exit(main())
