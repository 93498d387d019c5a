#!/usr/bin/env python3
"""Give the utterances of a manifest word times by forced alignment with the CTC head of a phase-1 model.

    python tools/force_align.py --model exp/1_whisper/final data/train/manifest.jsonl data/train/timed.jsonl
    python tools/force_align.py --model exp/1_whisper/final data aligned

The second form takes every data/SPLIT/manifest.jsonl and writes aligned/SPLIT/manifest.jsonl.
Utterances that cannot be aligned are written without times and counted by reason. Exit status: 0 done, 1 a fault or no utterance got times.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wenet_osum.corpus.forced_align import GAP_S, force_align, spelling  # noqa: E402
from wenet_osum.corpus.match_words import Unmatched  # noqa: E402
from wenet_osum.corpus.split_folders import split_pairs  # noqa: E402
from wenet_osum.dataset.drop import Drop, table  # noqa: E402
from wenet_osum.dataset.log_mel import log_mel  # noqa: E402
from wenet_osum.dataset.manifest import read_manifest, write_manifest  # noqa: E402
from wenet_osum.dataset.rewrite import read_audio  # noqa: E402
from wenet_osum.models.encoder.whisper import SUBSAMPLING  # noqa: E402
from wenet_osum.models.whisper import WhisperPhase  # noqa: E402
from wenet_osum.progress import ProgressBar  # noqa: E402
from wenet_osum.records import FRAME_S, Utterance  # noqa: E402
from wenet_osum.text.template import Template  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a phase-1 model with a CTC head, e.g. exp/1_whisper/final")
    parser.add_argument("--gap_s", type=float, default=GAP_S, help=f"longest gap between words that is split between them, s ({GAP_S})")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("manifest", help="manifest, or a folder with one per split")
    parser.add_argument("out", help="manifest, or a folder")
    args = parser.parse_args(argv)
    try:
        parts = _load(args.model, args.device)
        aligned = [_align(args, parts, *pair) for pair in split_pairs(args.manifest, args.out)]
    except (ValueError, OSError) as error:
        print(f"force_align.py: {error}", file=sys.stderr)
        return 1
    return 0 if all(aligned) else 1


def _align(args: argparse.Namespace, parts: tuple, manifest: Path, out: Path) -> bool:
    """Write one manifest with times; tells whether any utterance got some."""
    faults: Counter = Counter()
    written = write_manifest(out, _timed(args, parts, manifest, faults))
    print(f"{out}: {written} utterances, {written - faults.total()} with word times")
    print(f"without word times, by reason:\n{table(faults)}" if faults else "none is without")
    return written > faults.total()


def _timed(args: argparse.Namespace, parts: tuple, manifest: Path, faults: Counter) -> Iterator[Utterance]:
    emit, encode, blank = parts
    for utterance in ProgressBar(None, title=str(manifest)).over(read_manifest(manifest)):
        try:
            if not utterance.txt:
                raise Unmatched("no transcript")
            audio = read_audio(utterance, str(manifest))
            words = force_align(emit(audio), utterance.txt, encode, blank, SUBSAMPLING * FRAME_S, args.gap_s)
            yield dataclasses.replace(utterance, words=words)
        except (Unmatched, Drop) as fault:
            faults[fault.reason] += 1
            yield utterance


def _load(folder: str, device: str) -> tuple[Callable[[np.ndarray], torch.Tensor], Callable[[str], list[tuple[int, int, int]]], int]:
    """What makes emissions of audio, what makes (token, first, end) of text, and the blank."""
    model, template = WhisperPhase.from_pretrained(folder).to(device), Template.load(folder)
    if model.ctc_head is None:
        raise ValueError(f"{folder} has no CTC head; train phase 1 with ctc in model.losses")

    @torch.no_grad()
    def emit(audio: np.ndarray) -> torch.Tensor:
        features = log_mel(audio, model.config.num_mel_bins)[None].to(device)
        states, _ = model.encoder(features, torch.tensor([features.shape[1]]))
        return model.ctc_head(states)[0].log_softmax(-1)

    encode = spelling(template.tokenizer, model.ctc_classes, template.lowercase)
    return emit, encode, model.blank


if __name__ == "__main__":
    sys.exit(main())
