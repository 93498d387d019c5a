#!/usr/bin/env python3
"""Give the utterances of a manifest word times by forced alignment with a model's CTC.

    python tools/force_align.py --model exp/1_whisper/final data/train/manifest.jsonl \\
        data/train/timed.jsonl
    python tools/force_align.py --model exp/1_whisper/final data aligned
    python tools/force_align.py --model exp/2_align/final --ends voice data aligned

The model is one of phase 1 with a CTC head, or a speech LLM that was trained with the loss ctc.
Spikes of CTC say when a word begins, and less of when it ends: with --ends voice it lasts until its
voice falls silent. The last two forms take every data/SPLIT/manifest.jsonl and write
aligned/SPLIT/manifest.jsonl.

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

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wenet_osum.corpus.forced_align import (  # noqa: E402
    GAP_S,
    force_align,
    spelling,
    until_quiet,
)
from wenet_osum.corpus.match_words import Unmatched  # noqa: E402
from wenet_osum.corpus.split_folders import split_pairs  # noqa: E402
from wenet_osum.dataset.drop import Drop, table  # noqa: E402
from wenet_osum.dataset.log_mel import log_mel  # noqa: E402
from wenet_osum.dataset.manifest import read_manifest, write_manifest  # noqa: E402
from wenet_osum.dataset.rewrite import read_audio  # noqa: E402
from wenet_osum.decode import ctc_greedy  # noqa: E402
from wenet_osum.decode.pauses import STEP_S, voiced_steps  # noqa: E402
from wenet_osum.models import build  # noqa: E402
from wenet_osum.models.ctc_scores import scoring_of  # noqa: E402
from wenet_osum.models.osum import OsumModel  # noqa: E402
from wenet_osum.progress import ProgressBar  # noqa: E402
from wenet_osum.records import SAMPLE_RATE, Utterance, Word  # noqa: E402
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
        help="a word ends with its last token, or where its voice falls silent (tokens)",
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("manifest", help="manifest, or a folder with one per split")
    parser.add_argument("out", help="manifest, or a folder")
    args = parser.parse_args(argv)
    try:
        aligner = Aligner(args.model, args.device, args.gap_s, args.ends == "voice")
        pairs = split_pairs(args.manifest, args.out)
        aligned = [_align(aligner, manifest, out) for manifest, out in pairs]
    except (ValueError, OSError) as error:
        print(f"force_align.py: {error}", file=sys.stderr)
        return 1
    return 0 if all(aligned) else 1


class Aligner:
    """Finds the words of a transcript in audio with the CTC of a model.

    ``to_quiet``: words last until their voice falls silent. Raises ValueError for a model without
    CTC.
    """

    def __init__(self, folder: str, device: str, gap_s: float, to_quiet: bool) -> None:
        self.device = device
        # Where the voice tells how long words last, nothing is to be split.
        self.gap_s = 0.0 if to_quiet else gap_s
        self.to_quiet = to_quiet
        self.model = build.load(folder).to(device).eval()
        ctc_greedy.check_model(self.model, "forced alignment")
        self.classes = self.model.speech_classes()
        losses = getattr(self.model.config, "losses", None)
        scoring = scoring_of(losses)
        template = Template.load(folder)
        self.encode = spelling(template.tokenizer, scoring.classes, template.lowercase)

        # Of a state: those of the encoder, or what the adapter of a speech LLM makes of them.
        self.frame_s = self.model.encoder.state_s
        if isinstance(self.model, OsumModel):
            self.frame_s = self.model.embedding_s

    def words(self, audio: np.ndarray, text: str) -> list[Word]:
        """Return the words of ``text`` with their times in ``audio`` (samples).

        Raises Unmatched for a text that cannot be aligned.
        """
        logs = self.log_probs(audio)
        words = force_align(
            logs,
            text,
            self.encode,
            self.classes.blank,
            self.frame_s,
            self.gap_s,
        )
        if self.to_quiet:
            voiced = voiced_steps(audio, SAMPLE_RATE)
            words = until_quiet(words, voiced, STEP_S, self.frame_s)

        # The last state may reach beyond the end.
        duration = len(audio) / SAMPLE_RATE
        kept = []
        for text, start, end in words:
            within = Word(text, min(start, duration), min(end, duration))
            kept.append(within)
        return kept

    @torch.no_grad()
    def log_probs(self, audio: np.ndarray) -> torch.Tensor:
        """Return the log-probabilities of CTC, (frames, classes)."""
        features = log_mel(audio, self.model.encoder.mels)
        batch = features[None].to(self.device)
        lengths = torch.tensor([len(features)])
        _, states, lengths = ctc_greedy.hear(self.model, batch, lengths)
        count = int(lengths[0])
        logits = self.classes.logits(states[0, :count])
        return logits.float().log_softmax(-1)


def _align(aligner: Aligner, manifest: Path, out: Path) -> bool:
    """Write one manifest with times; tells whether any utterance got some."""
    faults: Counter = Counter()
    written = write_manifest(out, _timed(aligner, manifest, faults))
    timed = written - faults.total()
    print(f"{out}: {written} utterances, {timed} with word times")
    print(f"without word times, by reason:\n{table(faults)}" if faults else "none is without")
    return timed > 0


def _timed(aligner: Aligner, manifest: Path, faults: Counter) -> Iterator[Utterance]:
    """Yield the utterances with their times; those that cannot be aligned are counted by reason."""
    progress = ProgressBar(None, title=str(manifest))
    for utterance in progress.over(read_manifest(manifest)):
        try:
            if not utterance.txt:
                raise Unmatched("no transcript")
            audio = read_audio(utterance, str(manifest))
            words = aligner.words(audio, utterance.txt)
            yield dataclasses.replace(utterance, words=words)
        except (Unmatched, Drop) as fault:
            faults[fault.reason] += 1
            yield utterance


if __name__ == "__main__":
    sys.exit(main())
