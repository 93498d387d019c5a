#!/usr/bin/env python3
"""How near llama.cpp comes to the model that a GGUF file was made of, on real recordings.

    wenet_osum export --model exp/x/final --gguf q8_0 --out exp/q8
    python tools/bench/gguf_parity.py --folder exp/q8 --list data/test/asr.list --most 50

The model answers each recording greedily in float32; llama.cpp reads the same prompt embeddings and
then the same answer, token by token. Told are the share of tokens that it would have chosen too,
the Kullback-Leibler divergence of its distributions in nats, and the share of answers that it would
have given. It needs requirements/llama_cpp.txt. Exit status: 0 done, 1 a fault.
"""

from __future__ import annotations

import argparse
import runpy
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoProcessor

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from wenet_osum.dataset import audio  # noqa: E402
from wenet_osum.decode.jobs import read_list  # noqa: E402
from wenet_osum.hub import export  # noqa: E402
from wenet_osum.models.osum import OsumModel  # noqa: E402

HEAD = ["| recordings | tokens | as the model | divergence, nats | answers as the model | RTF |"]
HEAD += ["|---" * 6 + "|"]


@dataclass
class Found:
    """What was compared so far."""

    chosen: list[bool] = field(default_factory=list)  # by token: llama.cpp's is the model's
    divergence: list[float] = field(default_factory=list)  # by token, nats
    answers: list[bool] = field(default_factory=list)  # by recording
    audio_s: float = 0.0
    spent_s: float = 0.0  # of llama.cpp

    def row(self) -> str:
        """Write the row of the table."""
        chosen = 100 * np.mean(self.chosen)
        answers = 100 * np.mean(self.answers)
        counts = f"| {len(self.answers)} | {len(self.chosen)} "
        near = f"| {chosen:.2f} % | {np.mean(self.divergence):.5f} | {answers:.1f} % "
        return counts + near + f"| {self.spent_s / self.audio_s:.3f} |"


def answer(model: OsumModel, embeddings: Tensor, ends: set[int], longest: int) -> list[int]:
    """Answer prompt embeddings (1, L, H) greedily: token ids, with the end where it comes."""
    ids = model.llm.generate(
        inputs_embeds=embeddings,
        max_new_tokens=longest,
        do_sample=False,
        eos_token_id=sorted(ends),
    )
    return ids[0].tolist()


def log_probs(model: OsumModel, embeddings: Tensor, said: list[int]) -> Tensor:
    """Return what the model says before each answer token: log-probabilities (A, V)."""
    tokens = torch.tensor([said[:-1]], dtype=torch.long)
    told = model.get_input_embeddings()(tokens)
    everything = torch.cat([embeddings, told], 1)
    logits = model.llm(inputs_embeds=everything).logits[0, -len(said) :]
    return logits.float().log_softmax(-1)


def compare(found: Found, ours: Tensor, theirs: Tensor, said: list[int]) -> None:
    """Count how near the distributions ``theirs`` (A, V) come to ``ours``, log-probabilities."""
    chosen = (theirs.argmax(-1) == torch.tensor(said)).tolist()
    found.chosen += chosen
    found.answers.append(all(chosen))
    divergence = (ours.exp() * (ours - theirs)).sum(-1)
    found.divergence += divergence.tolist()


@torch.no_grad()
def run(args: argparse.Namespace) -> Found:
    """Compare all recordings. Raises ValueError for a list without any."""
    example: dict[str, Any] = runpy.run_path(str(args.folder / export.LLAMA_CPP_EXAMPLE))
    processor = AutoProcessor.from_pretrained(args.folder)
    model = OsumModel.from_pretrained(args.folder, dtype=torch.float32).eval()
    ends = processor.template.end_ids | {processor.template.end_id}
    llama = example["open_llm"](args.threads)

    found = Found()
    jobs, _ = read_list(args.list)
    for job in jobs[: args.most]:
        _, sound = job.read()
        wave = audio.decode(sound)
        embeddings, _ = model.prompt_embeddings(**processor(audio=wave, task=args.task))
        said = answer(model, embeddings, ends, args.max_tokens)
        began = time.perf_counter()
        text = example["Text"](llama)
        logits = [text.read_embeddings(embeddings[0].numpy())]
        logits += [text.read_token(token) for token in said[:-1]]
        found.spent_s += time.perf_counter() - began
        found.audio_s += job.seconds
        theirs = torch.from_numpy(np.stack(logits)).float().log_softmax(-1)
        compare(found, log_probs(model, embeddings, said), theirs, said)
    if not found.answers:
        raise ValueError(f"{args.list}: no recordings")
    return found


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="what export --gguf has written")
    parser.add_argument("--list", required=True, help="manifest or data.list of shards")
    parser.add_argument("--most", type=int, default=50, help="recordings")
    parser.add_argument("--task", default="asr", help="name or tags")
    parser.add_argument("--max_tokens", type=int, default=200, help="of an answer")
    parser.add_argument("--threads", type=int, default=1, help="of torch and of llama.cpp")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    try:
        found = run(args)
    except (OSError, ValueError) as error:
        print(f"gguf_parity.py: {error}", file=sys.stderr)
        return 1
    print(*HEAD, found.row(), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
