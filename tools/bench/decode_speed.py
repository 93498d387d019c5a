#!/usr/bin/env python3
"""How fast batched greedy decoding is beside the published way and beside one-by-one greedy.

    python tools/bench/decode_speed.py --threads 2
    python tools/bench/decode_speed.py --model exp/x/final --list data/test.list --task asr

The published way is one by one, 4 beams with sampling. All three answer the same utterances with
the same model, turn by turn in one run, from 16 kHz samples to text. Without --model a small random
model is made, whose text never ends: every answer has --tokens tokens. Prints one table (medians
and quartiles over the rounds; wall times hold on an idle machine, CPU times also on a busy one) and
fails when batched and single greedy answers differ where neither met a tie.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from wenet_osum.dataset import audio  # noqa: E402
from wenet_osum.decode import longform  # noqa: E402
from wenet_osum.decode.jobs import Job, read_list  # noqa: E402
from wenet_osum.decode.options import DecodeOptions  # noqa: E402
from wenet_osum.decode.pipeline import Recognizer  # noqa: E402
from wenet_osum.models import build  # noqa: E402
from wenet_osum.records import SAMPLE_RATE, Hypothesis, Utterance  # noqa: E402
from wenet_osum.text.template import Template  # noqa: E402

BATCHED, PUBLISHED, SINGLE = (
    "batches, greedy",
    "one by one, 4 beams with sampling",
    "one by one, greedy",
)
PENALTY = 1.05  # repetition penalty of the published way
Clips = list[tuple[Utterance, np.ndarray]]


def make_random_model(folder: str) -> None:
    """A random model as a folder: the published one with widths ÷ 16 and layers ÷ 4. Its end of
    text is never the likeliest token.

    Proportions matter: where the LLM outweighs the encoder as it does there, tokens cost more than
    listening.
    """
    from transformers import Qwen2Config, WhisperConfig

    from wenet_osum.models.osum import OsumConfig, OsumModel
    from wenet_osum.small.train_tokenizer import train_tokenizer

    tokenizer = train_tokenizer(["the cat sat on the mat", "今天天气很好。"], vocab_size=420)
    special = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, "decoder_start_token_id": 0}
    heads = {
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_layers": 6,
        "decoder_layers": 1,
    }
    whisper = WhisperConfig(
        vocab_size=20,
        num_mel_bins=80,
        d_model=64,
        encoder_ffn_dim=256,
        decoder_ffn_dim=32,
        **heads,
        **special,
    )
    sizes = {
        "hidden_size": 224,
        "intermediate_size": 1184,
        "num_hidden_layers": 7,
        "num_attention_heads": 7,
        "num_key_value_heads": 1,
    }
    llm = Qwen2Config(
        vocab_size=9504,
        **sizes,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(3)
    model = OsumModel(
        OsumConfig(
            encoder=whisper.to_dict(),
            llm=llm.to_dict(),
            adapter_conf={"layers": 1, "heads": 4, "ffn": 160},
        )
    ).float()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and "embed_positions" not in name:
                weight.normal_(std=weight[0].numel() ** -0.5)
        model.llm.lm_head.weight *= 6
        model.llm.lm_head.weight[len(tokenizer) :] = 0  # rows without a token
        model.llm.lm_head.weight[tokenizer.eos_token_id] = 0
    model.save_pretrained(folder)
    Template(tokenizer).save(folder)


def load(args: argparse.Namespace, dtype: torch.dtype = torch.float32) -> Recognizer:
    """Return the model of --model, or a random one, as a greedy recognizer of --task."""
    with tempfile.TemporaryDirectory() as folder:
        if not args.model:
            make_random_model(folder)
        place = args.model or folder
        template = Template.load(place)
        model = build.load(place, dtype).eval()
    if model.lora is not None:
        model.merge_lora()
    most = None if args.model else args.tokens
    return Recognizer(
        model,
        template,
        DecodeOptions(max_tokens=most),
        template.task(args.task),
        batch_size=args.batch_size,
    )


def read_clips(args: argparse.Namespace) -> Clips:
    """Read the first --utterances of --list that are no longer than 30 s, or noise of 2 to 8 s."""
    if args.list:
        return clips_of(args.list, args.utterances)
    draws = np.random.default_rng(7)
    seconds = draws.uniform(2, 8, args.utterances)
    lengths = (seconds * SAMPLE_RATE).astype(int)
    clips = []
    for number, length in enumerate(lengths):
        key = f"u{number}"
        noise = draws.normal(0, 0.1, length)
        clips.append((Utterance(key, key), noise.astype(np.float32)))
    return clips


def clips_of(path: str, most: int) -> Clips:
    """Read the first utterances of a list that are decoded in one piece, with their samples."""
    jobs, _ = read_list(path)
    short = [job for job in jobs if not job.error and job.seconds <= longform.WHOLE_S]
    clips = []
    for job in short[:most]:
        utterance, source = job.read()
        data = source if isinstance(source, bytes) else source.read_bytes()
        clips.append((utterance, audio.decode(data)))
    return clips


def batched(recognizer: Recognizer, clips: Clips) -> list[Hypothesis]:
    """Answer in batches of similar length, as recognize makes them."""
    jobs = []
    for number, (utterance, samples) in enumerate(clips):
        seconds = len(samples) / SAMPLE_RATE
        jobs.append(Job(number, utterance.key, seconds, lambda: None))
    answers: dict[int, Hypothesis] = {}
    for group in recognizer.groups(jobs):
        places = [job.index for job in group]
        items = [recognizer.load(*clips[place]) for place in places]
        found = recognizer.decode(items)
        answers |= zip(places, found, strict=True)
    return [answers[place] for place in range(len(clips))]


def single(recognizer: Recognizer, clips: Clips) -> list[Hypothesis]:
    """Answer one after the other."""
    answers = []
    for clip in clips:
        item = recognizer.load(*clip)
        answers += recognizer.decode([item])
    return answers


def published(recognizer: Recognizer, clips: Clips, most: int) -> list[Hypothesis]:
    """Answer one after the other as the published model is decoded: transformers' generate."""
    from wenet_osum.dataset.batch import collate

    template = recognizer.template
    answers = []
    for utterance, samples in clips:
        item = recognizer.load(utterance, samples)
        batch = collate([item])
        with torch.inference_mode():
            [ids] = recognizer.model.generate(
                batch.features,
                batch.feature_lengths,
                batch.prompt_ids,
                batch.prompt_lengths,
                num_beams=4,
                do_sample=True,
                repetition_penalty=PENALTY,
                max_new_tokens=most,
                eos_token_id=template.end_id,
                pad_token_id=template.end_id,
            )
        text = template.decode(ids.tolist())
        answers.append(Hypothesis(utterance.key, recognizer.task.tags, text))
    return answers


class Spent(NamedTuple):
    """What one round of a way took."""

    wall_s: float
    cpu_s: float


def timed(
    ways: dict[str, Callable[[], list[Hypothesis]]], rounds: int
) -> tuple[dict[str, list[Spent]], dict[str, list[Hypothesis]]]:
    """Return what each way took in each round, and its last answers.

    Who begins changes from round to round; a first one only warms up.
    """
    spent: dict[str, list[Spent]] = {name: [] for name in ways}
    answers = {}
    for turn in range(rounds + 1):
        first = turn % len(ways)
        names = list(ways)
        for name in names[first:] + names[:first]:
            wall = time.perf_counter()
            cpu = time.process_time()
            answers[name] = ways[name]()
            took = Spent(time.perf_counter() - wall, time.process_time() - cpu)
            if turn:
                spent[name].append(took)
    return spent, answers


def spread(values: list[float], form: str = ".2f") -> str:
    """Write the median with quartiles."""
    low = high = values[0]
    if len(values) > 1:
        low, _, high = quantiles(values, n=4, method="inclusive")
    return f"{median(values):{form}} [{low:{form}}, {high:{form}}]"


def main(argv: list[str] | None = None) -> int:
    """Time the three ways, print the table; 1 when batched and single answers differ."""
    args = parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    recognizer = load(args)
    clips = read_clips(args)
    most = 400 if args.model else args.tokens
    ways = {
        BATCHED: lambda: batched(recognizer, clips),
        PUBLISHED: lambda: published(recognizer, clips, most),
        SINGLE: lambda: single(recognizer, clips),
    }
    spent, answers = timed(ways, args.rounds)
    heard_s = sum(len(samples) for _, samples in clips) / SAMPLE_RATE
    print(f"{len(clips)} utterances, {heard_s:.0f} s of audio, {args.threads} threads, ", end="")
    print(f"batches of {args.batch_size}, {args.rounds} rounds; median [quartiles]\n")
    print(*HEAD, sep="\n")
    for name, rounds in spent.items():
        print(row(name, rounds, spent[BATCHED], answers[name], heard_s))
    return agree(answers[BATCHED], answers[SINGLE], recognizer.counts)


HEAD = [
    "| | utterances/s | real-time factor | characters an answer | times the wall time of batches "
    "| times the CPU time of batches |",
    "|---|---|---|---|---|---|",
]


def row(
    name: str,
    spent: list[Spent],
    batches: list[Spent],
    answers: list[Hypothesis],
    heard_s: float,
) -> str:
    """Return the table row of a way; ratios are taken within a round."""
    pairs = list(zip(spent, batches, strict=True))
    characters = sum(len(answer.text) for answer in answers)
    cells = [
        name,
        spread([len(answers) / one.wall_s for one in spent]),
        spread([one.wall_s / heard_s for one in spent], ".4f"),
        f"{characters / len(answers):.0f}",
        spread([one.wall_s / other.wall_s for one, other in pairs]),
        spread([one.cpu_s / other.cpu_s for one, other in pairs]),
    ]
    return f"| {' | '.join(cells)} |"


def agree(together: list[Hypothesis], alone: list[Hypothesis], counts: Counter) -> int:
    """Say whether the answers are the same; 1 when one differs without a tie."""
    different = 0
    unexplained = 0
    for one, other in zip(together, alone, strict=True):
        if one.text != other.text or one.labels != other.labels:
            different += 1
            unexplained += "tie" not in one.flags + other.flags
    print(
        f"\nbatched and single greedy: {different} of {len(alone)} answers differ, "
        f"{unexplained} of them without a tie; "
        f"{counts['ties']} of {counts['steps']} steps were ties"
    )
    return 1 if unexplained else 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    known = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known.add_argument("--model", help="model folder (default: a small random model)")
    known.add_argument("--list", help="list to decode (default: noise)")
    known.add_argument("--task", default="asr", help="task name or tags")
    known.add_argument("--utterances", type=int, default=64, help="at most")
    known.add_argument("--tokens", type=int, default=40, help="length of a random model's answers")
    known.add_argument("--batch_size", type=int, default=16)
    known.add_argument("--rounds", type=int, default=5)
    known.add_argument("--threads", type=int, default=2, help="torch threads")
    return known


if __name__ == "__main__":
    sys.exit(main())
