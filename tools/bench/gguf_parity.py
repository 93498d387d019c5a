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
        recordings = len(self.answers)
        tokens = len(self.chosen)
        chosen = 100 * np.mean(self.chosen)
        answers = 100 * np.mean(self.answers)
        divergence = np.mean(self.divergence)
        factor = self.spent_s / self.audio_s
        cells = [
            f"{recordings}",
            f"{tokens}",
            f"{chosen:.2f} %",
            f"{divergence:.5f}",
            f"{answers:.1f} %",
            f"{factor:.3f}",
        ]
        joined = " | ".join(cells)
        return f"| {joined} |"


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
    before_last = said[:-1]
    tokens = torch.tensor([before_last], dtype=torch.long)
    embed = model.get_input_embeddings()
    told = embed(tokens)
    everything = torch.cat([embeddings, told], 1)
    output = model.llm(inputs_embeds=everything)
    count = len(said)
    logits = output.logits[0, -count:]
    return logits.float().log_softmax(-1)


def read(text: Any, embeddings: Tensor, said: list[int]) -> Tensor:
    """Let llama.cpp read prompt embeddings (L, H) and an answer; log-probabilities (A, V)."""
    prompt = embeddings.numpy()
    first = text.read_embeddings(prompt)
    rows = [first]
    for token in said[:-1]:
        logits = text.read_token(token)
        rows.append(logits)
    stacked = np.stack(rows)
    logits = torch.from_numpy(stacked)
    return logits.float().log_softmax(-1)


def compare(found: Found, ours: Tensor, theirs: Tensor, said: list[int]) -> None:
    """Count how near the distributions ``theirs`` (A, V) come to ``ours``, log-probabilities."""
    best = theirs.argmax(-1)
    wanted = torch.tensor(said)
    same = best == wanted
    chosen = same.tolist()
    found.chosen += chosen
    every = all(chosen)
    found.answers.append(every)

    probability = ours.exp()
    apart = ours - theirs
    products = probability * apart
    divergence = products.sum(-1)
    found.divergence += divergence.tolist()


@torch.no_grad()
def run(args: argparse.Namespace) -> Found:
    """Compare all recordings. Raises ValueError for a list without any."""
    path = args.folder / export.LLAMA_CPP_EXAMPLE
    example: dict[str, Any] = runpy.run_path(str(path))
    processor = AutoProcessor.from_pretrained(args.folder)
    model = OsumModel.from_pretrained(args.folder, dtype=torch.float32).eval()
    ends = processor.template.end_ids | {processor.template.end_id}
    llama = example["open_llm"](args.threads)

    found = Found()
    jobs, _ = read_list(args.list)
    for job in jobs[: args.most]:
        _, sound = job.read()
        wave = audio.decode(sound)
        inputs = processor(audio=wave, task=args.task)
        embeddings, _ = model.prompt_embeddings(**inputs)
        said = answer(model, embeddings, ends, args.max_tokens)
        ours = log_probs(model, embeddings, said)

        # The same by llama.cpp, which is timed.
        began = time.perf_counter()
        text = example["Text"](llama)
        theirs = read(text, embeddings[0], said)
        found.spent_s += time.perf_counter() - began
        found.audio_s += job.seconds
        compare(found, ours, theirs, said)
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
