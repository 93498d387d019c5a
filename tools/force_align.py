#!/usr/bin/env python3
"""Give the utterances of a manifest word times by forced alignment with a model's CTC.

    python tools/force_align.py --model exp/2_align/final --ends voice data/train/manifest.jsonl \\
        data/train/timed.jsonl
    python tools/force_align.py --model exp/2_align/final --ends voice data aligned
    python tools/force_align.py --model exp/1_whisper/final data aligned

The model is a speech LLM that was trained with the loss ctc, or one of phase 1 with a CTC head.
Compare its times with some that are known: examples/natural found those of phase 1 far off.
Spikes of CTC say when a word begins, and less of when it ends: with --ends voice pauses part the
words, and a word lasts until its voice falls silent. The last two lines take every
data/SPLIT/manifest.jsonl and write aligned/SPLIT/manifest.jsonl.

Utterances that cannot be aligned are written without times and counted by reason. Exit status: 0
done, 1 a fault or no utterance got times.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wenet_osum.corpus.forced_align import GAP_S  # noqa: E402
from wenet_osum.corpus.match_words import Unmatched  # noqa: E402
from wenet_osum.corpus.split_folders import split_pairs  # noqa: E402
from wenet_osum.dataset.drop import Drop, Dropped, table  # noqa: E402
from wenet_osum.dataset.log_mel import log_mel  # noqa: E402
from wenet_osum.dataset.manifest import read_manifest, write_manifest  # noqa: E402
from wenet_osum.dataset.rewrite import read_audio  # noqa: E402
from wenet_osum.dataset.scan import located  # noqa: E402
from wenet_osum.decode.aligner import Aligner  # noqa: E402
from wenet_osum.models import build  # noqa: E402
from wenet_osum.progress import ProgressBar  # noqa: E402
from wenet_osum.records import Utterance  # noqa: E402
from wenet_osum.text.template import Template  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model",
        required=True,
        help="folder of a model with CTC, e.g. exp/2_align/final",
    )
    parser.add_argument(
        "--gap_s",
        type=float,
        default=GAP_S,
        help=f"longest gap between words that is split between them, s ({GAP_S})",
    )
    parser.add_argument(
        "--ends",
        choices=["tokens", "voice"],
        default="tokens",
        help="a word ends with its last token, or pauses part the words (tokens)",
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("manifest", help="manifest, or a folder with one per split")
    parser.add_argument("out", help="manifest, or a folder")
    args = parser.parse_args(argv)
    try:
        aligner = _open(args)
        pairs = split_pairs(args.manifest, args.out)
        aligned = [_align(aligner, manifest, out) for manifest, out in pairs]
    except (ValueError, OSError) as error:
        print(f"force_align.py: {error}", file=sys.stderr)
        return 1
    return 0 if all(aligned) else 1


def _open(args: argparse.Namespace) -> Aligner:
    """Load the model. Where the voice tells how long words last, no gap is split."""
    model = build.load(args.model).to(args.device).eval()
    gap_s = None if args.ends == "voice" else args.gap_s
    return Aligner(model, Template.load(args.model), gap_s)


def _align(aligner: Aligner, manifest: Path, out: Path) -> bool:
    """Write one manifest with times; tells whether any utterance got some."""
    faults: Counter = Counter()
    dropped = Dropped()
    written = write_manifest(out, _timed(aligner, manifest, faults, dropped))
    timed = written - faults.total()
    print(f"{out}: {written} utterances, {timed} with word times")
    print(f"without word times, by reason:\n{table(faults)}" if faults else "none is without")
    if dropped:
        print(f"left out:\n{table(dropped)}")
    return timed > 0


def _timed(
    aligner: Aligner, manifest: Path, faults: Counter, dropped: Dropped
) -> Iterator[Utterance]:
    """Yield the utterances with their times; those that cannot be aligned are counted by reason."""
    progress = ProgressBar(None, title=str(manifest))
    rows = read_manifest(manifest, dropped)
    for utterance in progress.over(located(rows, manifest)):
        try:
            if not utterance.txt:
                raise Unmatched("no transcript")
            audio = read_audio(utterance, str(manifest))
            features = log_mel(audio, aligner.model.encoder.mels)
            words = aligner.words(features, utterance.txt)
            yield dataclasses.replace(utterance, words=words)
        except (Unmatched, Drop) as fault:
            faults[fault.reason] += 1
            yield utterance


if __name__ == "__main__":
    sys.exit(main())
