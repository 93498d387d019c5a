"""Write the page about the ablation, asrx.md and its picture, from the cells that are finished.

python local/page.py --results exp/results --out docs
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from arms import ARMS, FROZEN, TRAINED, X, cells
from figures import Row, drops, rows_of, spread_of
from picture import draw
from results import encoders_by_seed, read_all

from wenet_osum.files import write_text

TEMPLATE = Path(__file__).with_name("page.md")
SIGNS = {1: "better", -1: "worse", 0: "not told apart"}


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--results", type=Path, required=True, help="folder of the results, a file per cell"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for asrx.md and asrx.svg")
    args = parser.parse_args(argv)
    try:
        results = read_all(args.results)
        text = page(results)
    except (ValueError, OSError) as error:
        print(f"page.py: {error}", file=sys.stderr)
        return 1

    page_file = args.out / "asrx.md"
    picture_file = args.out / "asrx.svg"
    write_text(page_file, text)
    write_text(picture_file, draw(results))
    whole = len(list(cells()))
    print(f"{args.out}/asrx.md and asrx.svg: {len(results)} of {whole} cells")
    return 0


def page(results: list[dict[str, Any]]) -> str:
    """Write the whole page."""
    rows = {x.name: rows_of(results, x) for x in (*FROZEN, *TRAINED)}
    tables = []
    for title, group in (("The encoder stands still", FROZEN), ("Its upper layers train", TRAINED)):
        if any(rows[x.name] for x in group):
            figures = table(group, rows)
            tables.append(f"### {title}\n\n{figures}")
    parts = {
        "state": state(results),
        "tables": "\n\n".join(tables) or "None yet.",
        "verdict": verdict(rows),
        "steady": steady(results, rows),
    }
    text = TEMPLATE.read_text(encoding="utf-8")
    for name, part in parts.items():
        text = text.replace(f"{{{name}}}", part)
    return text


def state(results: list[dict[str, Any]]) -> str:
    """Say how much of it has been run, and by what."""
    whole = len(list(cells()))
    if not results:
        return (
            f"**None of the {whole} cells (arm × X × seed) is finished yet: there are no figures "
            "and no answer.** Stage 6 writes them here."
        )
    missing = whole - len(results)
    text = f"{len(results)} of {whole} cells (arm × X × seed) are finished"
    if missing:
        text += (
            f"; **{missing} are still to be run, and what they would say is not in the figures**"
        )
    first = results[0]
    seconds = sorted(result["seconds"] for result in results)
    median = seconds[len(seconds) // 2]
    names = sorted({result["commit"] or "unknown" for result in results})
    commits = ", ".join(f"`{name}`" for name in names)
    encoders = []
    for seed, [encoder] in sorted(encoders_by_seed(results).items()):
        encoders.append(f"seed {seed} `{encoder}`")
    listed = ", ".join(encoders)
    return (
        f"{text}. {first['epochs']} epochs each, median {median:.0f} s of training in one process; "
        f"commit {commits}; encoders: {listed}."
    )


HEAD = [
    "| X | arm | seeds | accuracy | lowest–highest seed | difference to X alone | recognition "
    "| audio, h | answer tokens |",
    "|---|---|---|---|---|---|---|---|---|",
]


def table(group: tuple[X, ...], rows: dict[str, list[Row]]) -> str:
    """Write the figures of some X."""
    lines = list(HEAD)
    majorities = []
    for x in group:
        for row in rows[x.name]:
            lines.append(line(x, row))
        # What always naming the most frequent class would reach; the same for all arms.
        first = next(iter(rows[x.name]), None)
        if first is not None and first.majority is not None:
            majorities.append(f"{x.name} {first.majority:.1f} %")
    if majorities:
        lines += ["", f"The most frequent class alone: {', '.join(majorities)}."]
    return "\n".join(lines)


def line(x: X, row: Row) -> str:
    """Write the line of an arm on an X."""
    difference = ""
    if row.difference is not None:
        interval = f"{row.low_d:+.1f} to {row.high_d:+.1f}"
        difference = f"{row.difference:+.1f} ({interval}), p {row.p_value:.3f}"
    heard = "" if row.wer is None else f"{row.wer:.1f} %"
    lowest = min(row.seeds)
    highest = max(row.seeds)
    cells_of_line = [
        x.name,
        ARMS[row.arm],
        str(len(row.seeds)),
        f"{row.value:.1f} ({row.low:.1f}–{row.high:.1f})",
        f"{lowest:.1f}–{highest:.1f}",
        difference,
        heard,
        f"{row.hours:.2f}",
        f"{row.answer_tokens:,.0f}",
    ]
    return f"| {' | '.join(cells_of_line)} |"


def verdict(rows: dict[str, list[Row]]) -> str:
    """Say what the intervals tell of every arm, in sentences made from the figures."""
    lines = []
    for arm, title in ARMS.items():
        told = compared(rows, arm)
        if told:
            said = by_sign(told)
            lines.append(f"- **{title}** against X alone, {len(told)} X: {said}.")
    helped = compared(rows, "asr_x")
    if not helped:
        return "\n".join([*lines, "No X has both arms yet, so nothing can be said."])

    signs = [row.sign for row in helped.values()]
    better = signs.count(1)
    worse = signs.count(-1)
    answer = "no answer either way"
    if better and worse:
        answer = "a mixed answer, not the gain for every X that the paper holds"
    elif better:
        answer = "what the paper holds"
    elif worse:
        answer = "against the paper"
    text = (
        f"With this model ASR+X is better than X alone for {better} of {len(helped)} X and worse "
        f"for {worse}: {answer}. A difference counts when its 95 % interval leaves out zero; it is "
        "an interval over test speakers, and three seeds are few, so read it with the seeds "
        "beside it."
    )
    return "\n".join([*lines, "", text])


def compared(rows: dict[str, list[Row]], arm: str) -> dict[str, Row]:
    """Return the rows of an arm that stand beside X alone, by X."""
    told = {}
    for x, found in rows.items():
        for row in found:
            if row.arm == arm and row.difference is not None:
                told[x] = row
    return told


def by_sign(told: dict[str, Row]) -> str:
    """Name the X by what their interval says."""
    parts = []
    for sign, title in SIGNS.items():
        names = []
        for x, row in told.items():
            if row.sign == sign:
                names.append(f"{x} {row.difference:+.1f}")
        listed = ", ".join(names)
        parts.append(f"{title}: {listed or 'none'}")
    return "; ".join(parts)


def steady(results: list[dict[str, Any]], rows: dict[str, list[Row]]) -> str:
    """Write the spread over seeds and the steps back in the learning curves, per arm."""
    lines = [
        "| arm | X with two seeds or more | highest minus lowest seed, mean over X "
        "| mean step back between two dev evaluations |",
        "|---|---|---|---|",
    ]
    for arm, title in ARMS.items():
        spreads = []
        for found in rows.values():
            for row in found:
                if row.arm == arm and len(row.seeds) > 1:
                    spreads.append(spread_of(row))
        mean = ""
        if spreads:
            mean = f"{sum(spreads) / len(spreads):.1f}"
        back = drops(results, arm)
        fallen = "" if back is None else f"{back:.1f}"
        count = len(spreads)
        lines.append(f"| {title} | {count} | {mean} | {fallen} |")
    note = (
        "In points of accuracy. A step back is the drop of dev accuracy from one evaluation to the "
        "next, 0 if it rises."
    )
    return "\n".join([*lines, "", note])


if __name__ == "__main__":
    sys.exit(main())
