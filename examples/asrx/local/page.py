"""Write the page about the ablation, asrx.md and its picture, from the cells that are finished.

python local/page.py --cells exp/cells --out docs
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from arms import ARMS, REAL, TOGETHER, TOY, X, cells
from figures import Row, drops, rows_of, spread_of
from picture import draw

TEMPLATE = Path(__file__).with_name("page.md")
SIGNS = {1: "better", -1: "worse", 0: "not told apart"}


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cells",
        type=Path,
        required=True,
        help="folder of the cells",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for asrx.md and asrx.svg")
    args = parser.parse_args(argv)
    try:
        results = read(args.cells)
        text = page(results)
    except (ValueError, OSError) as error:
        print(f"page.py: {error}", file=sys.stderr)
        return 1
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "asrx.md").write_text(text, encoding="utf-8")
    (args.out / "asrx.svg").write_text(draw(results), encoding="utf-8")
    print(f"{args.out}/asrx.md and asrx.svg: {len(results)} of {len([*cells()])} cells")
    return 0


def read(folder: Path) -> list[dict[str, Any]]:
    """The results of all finished cells. Raises ValueError when they began or ended differently, so
    that they cannot be compared.
    """
    results = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("*/result.json"))
    ]
    for name in ("encoder", "steps"):
        found = sorted({str(result[name]) for result in results})
        if len(found) > 1:
            raise ValueError(
                f"cells in {folder} differ in {name}: {', '.join(found)}; they cannot be compared. "
                "Put those of one run into a folder of their own"
            )
    return results


def page(results: list[dict[str, Any]]) -> str:
    """The whole page."""
    rows = {x.name: rows_of(results, x) for x in (*REAL, *TOY)}
    tables = [
        f"### {title}\n\n{table(group, rows)}"
        for title, group in (("Real speech", REAL), ("Synthesized speech", TOY))
        if any(rows[x.name] for x in group)
    ]
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
    """How much of it has been run, and by what."""
    whole = [*cells()]
    seconds = sorted(result["seconds"] for result in results)
    if not results:
        return f"**None of the {len(whole)} cells (arm × X × seed) is finished yet: there are no figures and no answer.** Stage 6 writes them here."
    missing = len(whole) - len(results)
    commits = ", ".join(
        f"`{name}`" for name in sorted({result["commit"] or "unknown" for result in results})
    )
    text = f"{len(results)} of {len(whole)} cells (arm × X × seed) are finished"
    text += (
        f"; **{missing} are still to be run, and what they would say is not in the figures**. "
        if missing
        else ". "
    )
    return (
        text
        + f"{results[0]['steps']} steps each, median {seconds[len(seconds) // 2]:.0f} s of training in one process; commit {commits}; encoder `{results[0]['encoder']}`."
    )


def table(group: tuple[X, ...], rows: dict[str, list[Row]]) -> str:
    """The figures of some X."""
    lines = [
        "| X | arm | seeds | accuracy | lowest–highest seed | difference to X alone | recognition "
        "| speech tokens | answer tokens | encoder |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|---|---|")
    for x in group:
        for row in rows[x.name]:
            difference = (
                ""
                if row.difference is None
                else f"{row.difference:+.1f} ({row.low_d:+.1f} to {row.high_d:+.1f}), p {row.p_value:.3f}"
            )
            heard = "" if row.wer is None else f"{row.wer:.1f} %"
            seeds = f"{min(row.seeds):.1f}–{max(row.seeds):.1f}"
            cols = [
                x.name,
                ARMS[row.arm],
                str(len(row.seeds)),
                f"{row.value:.1f} ({row.low:.1f}–{row.high:.1f})",
                seeds,
                difference,
                heard,
            ]
            lines.append(
                "| "
                + " | ".join(
                    [
                        *cols,
                        f"{row.speech_tokens:,.0f}",
                        f"{row.answer_tokens:,.0f}",
                        f"`{row.encoder}`",
                    ]
                )
                + " |"
            )
    if majorities := [
        f"{x.name} {rows[x.name][0].majority:.1f} %"
        for x in group
        if rows[x.name] and rows[x.name][0].majority is not None
    ]:
        lines += ["", f"The most frequent class alone: {', '.join(majorities)}."]
    return "\n".join(lines)


def verdict(rows: dict[str, list[Row]]) -> str:
    """What the intervals say of every arm, in sentences made from the figures."""
    lines = []
    for arm, title in ARMS.items():
        told = {
            x: row
            for x, found in rows.items()
            for row in found
            if row.arm == arm and row.difference is not None
        }
        if told:
            groups = {
                sign: [f"{x} {row.difference:+.1f}" for x, row in told.items() if row.sign == sign]
                for sign in SIGNS
            }
            said = "; ".join(
                f"{SIGNS[sign]}: {', '.join(names) or 'none'}" for sign, names in groups.items()
            )
            lines.append(f"- **{title}** against X alone, {len(told)} X: {said}.")
    helped = [
        row
        for found in rows.values()
        for row in found
        if row.arm == "asr_x" and row.difference is not None
    ]
    if not helped:
        return "\n".join([*lines, "No X has both arms yet, so nothing can be said."])
    better, worse = (sum(row.sign == sign for row in helped) for sign in (1, -1))
    said = {
        (True, True): "a mixed answer, not the gain for every X that the paper holds",
        (True, False): "what the paper holds",
        (False, True): "against the paper",
    }
    answer = said.get((better > 0, worse > 0), "no answer either way")
    text = f"On these models ASR+X is better than X alone for {better} of {len(helped)} X and worse for {worse}: {answer}. A difference counts when its 95 % interval leaves"
    text += " out zero; it is an interval over test utterances, and three seeds are few, so read it with the seeds beside it."
    return "\n".join([*lines, "", text])


def steady(results: list[dict[str, Any]], rows: dict[str, list[Row]]) -> str:
    """Spread over seeds and steps back in the learning curves, per arm."""
    lines = [
        "| arm | X with two seeds or more | highest minus lowest seed, mean over X | mean step back between two dev evaluations |",
        "|---|---|---|---|",
    ]
    for arm, title in ARMS.items():
        spreads = [
            spread_of(row)
            for found in rows.values()
            for row in found
            if row.arm == arm and len(row.seeds) > 1
        ]
        back = drops(results, arm)
        mean = f"{sum(spreads) / len(spreads):.1f}" if spreads else ""
        lines.append(
            f"| {title} | {len(spreads)} | {mean} | {'' if back is None else f'{back:.1f}'} |"
        )
    note = f"In points of accuracy. A step back is by how much dev accuracy falls from one evaluation to the next, 0 where it rises. {ARMS[TOGETHER].capitalize()}: curves of the real corpora only."
    return "\n".join([*lines, "", note])


if __name__ == "__main__":
    sys.exit(main())
