#!/usr/bin/env python3
"""Read the answers of another evaluation toolkit, so that `wenet_osum score` scores them.

    python tools/convert_answers.py --from kimi_evalkit eval_result/m/MELD/m_MELD.jsonl exp/meld
    python tools/convert_answers.py --from ultraeval res/m/vocalsound/last.jsonl exp/vocalsound
    wenet_osum score --set '<EMOTION>=exp/meld/meld/ref.jsonl,exp/meld/meld' --out exp/score

Each data set gets a folder in OUT with ref.jsonl, hyp.jsonl and its label set, which score reads,
and the command that scores it is printed. With --label_map the labels are ours instead. Answers
that are missing count as wrong; --missing skip leaves them out, as those toolkits do. What is left
out is counted. Exit status: 0 done, 1 a fault.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wenet_osum import lookup  # noqa: E402
from wenet_osum.dataset.drop import Dropped, table  # noqa: E402
from wenet_osum.dataset.manifest import write_lines, write_manifest  # noqa: E402
from wenet_osum.decode.write import HYPOTHESES, SETTINGS  # noqa: E402
from wenet_osum.files import write_text  # noqa: E402
from wenet_osum.score.answer_files import Converted, convert  # noqa: E402
from wenet_osum.score.free_answers import RULES  # noqa: E402
from wenet_osum.tasks import label_map  # noqa: E402

BENCHMARKS = "wenet_osum.score.benchmarks"


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parser().parse_args(argv)
    dropped = Dropped()
    try:
        found = _convert(args, dropped)
        for name, converted in found.items():
            _write(Path(args.out) / name, converted)
    except (ValueError, OSError) as error:
        print(f"convert_answers.py: {error}", file=sys.stderr)
        return 1
    if dropped:
        print("left out:", table(dropped), sep="\n")
    return 0 if found else 1


def parser() -> argparse.ArgumentParser:
    """Make the command line; toolkits are named by their files."""
    args = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = args.add_argument
    known = ", ".join(lookup.names(BENCHMARKS))
    add("--from", dest="source", required=True, help=f"toolkit that wrote ANSWERS: {known}")
    add("--set", help="its name of the data set, where ANSWERS does not tell it")
    add("--label_map", metavar="NAME", help="map (name or yaml) from the set's labels to ours")
    add(
        "--rule",
        choices=RULES,
        help="how a label is found in an answer: it begins with the label, gives an option's "
        "letter, or names one label; default: as the toolkit does",
    )
    add(
        "--missing",
        choices=["wrong", "skip"],
        default="wrong",
        help="utterances without an answer: wrong, or left out",
    )
    add("answers", metavar="ANSWERS")
    add("out", metavar="OUT", help="folder")
    return args


def _convert(args: argparse.Namespace, dropped: Dropped) -> dict[str, Converted]:
    """Read the answers, by data set."""
    benchmark = lookup.load(BENCHMARKS, args.source)
    mapped = label_map.load(args.label_map) if args.label_map else None
    answered = benchmark.read(args.answers, args.set, dropped)
    keep_missing = args.missing == "wrong"
    return convert(answered, args.rule or benchmark.RULE, mapped, keep_missing, dropped)


def _write(folder: Path, converted: Converted) -> None:
    """Write the answers to one data set, and say how they are scored."""
    folder.mkdir(parents=True, exist_ok=True)
    reference = folder / "ref.jsonl"
    written = write_manifest(reference, converted.references)
    rows = (hypothesis.to_json() for hypothesis in converted.hypotheses)
    write_lines(folder / HYPOTHESES, rows)
    settings = json.dumps({"labels": converted.labels}, ensure_ascii=False)
    write_text(folder / SETTINGS, settings)
    print(f"{folder}: {written} answers")
    print(f"wenet_osum score --set '{converted.task}={reference},{folder}' --out {folder}/score")


if __name__ == "__main__":
    sys.exit(main())
