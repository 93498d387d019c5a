"""Make the toy corpus: recordings, manifests and text. The same seed gives the same files, whatever
the number of jobs.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[3]), str(Path(__file__).resolve().parent)]

from checks import check_disjoint, check_vocabulary, table, text_baseline  # noqa: E402
from plan import SIZES, Order, plan  # noqa: E402
from render import render_all  # noqa: E402

from wenet_osum.files import write_text
from wenet_osum.records import Utterance  # noqa: E402

# Utterances made in one go by one espeak-ng; part of the corpus: another number gives slightly
# other audio.
CHUNK = 64
LEAST = 60  # occurrences in train every word must have at full scale


def main() -> None:
    """Parse the command line and make the corpus."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("data"),
        help="folder to write to",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=1,
        help="another seed gives another corpus",
    )
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full size")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument(
        "--mini", action="store_true", help="a tenth of the size, for a quick test of the pipeline"
    )
    args = parser.parse_args()
    if args.scale <= 0 or args.jobs < 1:
        parser.error(f"--scale {args.scale} must be above 0 and --jobs {args.jobs} at least 1")
    started = time.time()
    utterances = make(args.out, args.seed, args.scale * (0.1 if args.mini else 1.0), args.jobs)
    print(table(utterances))
    for name in ("emotion", "style"):
        right, majority = text_baseline(utterances["train"], utterances["test"], name)
        print(
            f"{name}: {right:.1f} % from the words alone (naive Bayes), {majority:.1f} % by the "
            "most frequent class"
        )
    print(
        f"{sum(map(len, utterances.values()))} utterances in {time.time() - started:.0f} s → "
        f"{args.out}"
    )


def make(out: Path, seed: int, scale: float, jobs: int) -> dict[str, list[Utterance]]:
    """Plan, check, synthesize and write all splits. Raises ValueError when splits overlap or a word
    is too rare.
    """
    orders = {
        split: plan(
            split,
            seed,
            scale,
        )
        for split in SIZES
    }
    check_disjoint(orders)
    if scale >= 1:
        check_vocabulary(orders, LEAST)
    for split in orders:
        (out / split / "wav").mkdir(parents=True, exist_ok=True)
    utterances = _synthesize(orders, out, jobs)
    for split, rows in utterances.items():
        _write(out / split / "manifest.jsonl", [row.to_json() for row in rows])
    (out / "text").mkdir(exist_ok=True)
    _write(out / "text" / "train.txt", [_text(row) for row in utterances["train"]])
    return utterances


def _synthesize(orders: dict[str, list[Order]], out: Path, jobs: int) -> dict[str, list[Utterance]]:
    chunks = [
        (rows[i : i + CHUNK], out) for rows in orders.values() for i in range(0, len(rows), CHUNK)
    ]
    if jobs == 1:
        made = [render_all(*chunk) for chunk in chunks]
    else:
        with multiprocessing.get_context("spawn").Pool(jobs) as pool:
            made = pool.starmap(
                render_all,
                chunks,
                chunksize=1,
            )
    utterances: dict[str, list[Utterance]] = {split: [] for split in orders}
    for (chunk, _), rows in zip(chunks, made, strict=True):
        utterances[chunk[0].split] += rows
    return utterances


def _text(row: Utterance) -> str:
    """A sentence, or a question with its answer, as the model is to write it."""
    if row.reply is None:
        return row.txt
    return f"{row.txt}<开始回答>{row.reply}"


def _write(path: Path, lines: list[str]) -> None:
    """Write lines, all or none, so that a file that exists is complete."""
    write_text(path, "".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    main()
