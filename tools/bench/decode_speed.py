#!/usr/bin/env python3
"""How fast batched greedy decoding is beside the published way (one by one, 4 beams with sampling)
and beside one-by-one greedy.

    python tools/bench/decode_speed.py --threads 2
    python tools/bench/decode_speed.py --model exp/x/final --list data/test.list --task asr

All three answer the same utterances with the same model, turn by turn in one run, from 16 kHz
samples to text. Without --model a small random model is made, whose text never ends: every answer
has --tokens tokens. Prints one table (medians and quartiles over the rounds; wall times hold on an
idle machine, CPU times also on a busy one) and fails when batched and single greedy answers differ
where neither met a tie.
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
    """The model of --model, or a random one, as a greedy recognizer of --task."""
    with tempfile.TemporaryDirectory() as folder:
        if not args.model:
            make_random_model(folder)
        place = args.model or folder
        template = Template.load(place)
        model = build.load(place, dtype).eval()
    if model.lora is not None:
        model.merge_lora()
    options = DecodeOptions(max_tokens=None if args.model else args.tokens)
    return Recognizer(
        model, template, options, template.task(args.task), batch_size=args.batch_size
    )


def read_clips(args: argparse.Namespace) -> Clips:
    """The first --utterances of --list that are no longer than 30 s, or noise of 2 to 8 s."""
    if args.list:
        jobs = [
            job
            for job in read_list(args.list)[0]
            if not job.error and job.seconds <= longform.WHOLE_S
        ]
        read = [job.read() for job in jobs[: args.utterances]]
        return [
            (u, audio.decode(source if isinstance(source, bytes) else source.read_bytes()))
            for u, source in read
        ]
    draws = np.random.default_rng(7)
    lengths = (draws.uniform(2, 8, args.utterances) * SAMPLE_RATE).astype(int)
    return [
        (Utterance(f"u{i}", f"u{i}"), draws.normal(0, 0.1, n).astype(np.float32))
        for i, n in enumerate(lengths)
    ]


def batched(recognizer: Recognizer, clips: Clips) -> list[Hypothesis]:
    """Answers in batches of similar length, as recognize makes them."""
    jobs = [
        Job(i, u.key, len(samples) / SAMPLE_RATE, lambda: None)
        for i, (u, samples) in enumerate(clips)
    ]
    answers: dict[int, Hypothesis] = {}
    for group in recognizer.groups(jobs):
        items = [recognizer.load(*clips[job.index]) for job in group]
        answers |= zip([job.index for job in group], recognizer.decode(items), strict=True)
    return [answers[i] for i in range(len(clips))]


def single(recognizer: Recognizer, clips: Clips) -> list[Hypothesis]:
    """Answers one after the other."""
    return [recognizer.decode([recognizer.load(*clip)])[0] for clip in clips]


def published(recognizer: Recognizer, clips: Clips, most: int) -> list[Hypothesis]:
    """Answers one after the other by transformers' generate, with the settings the published model
    is decoded with.
    """
    from wenet_osum.dataset.batch import collate

    model = recognizer.model
    template = recognizer.template
    found = []
    search = {
        "num_beams": 4,
        "do_sample": True,
        "repetition_penalty": PENALTY,
        "max_new_tokens": most,
    }
    ends = {"eos_token_id": template.end_id, "pad_token_id": template.end_id}
    for clip in clips:
        batch = collate([recognizer.load(*clip)])
        with torch.inference_mode():
            ids = model.generate(
                batch.features,
                batch.feature_lengths,
                batch.prompt_ids,
                batch.prompt_lengths,
                **search,
                **ends,
            )
        found.append(
            Hypothesis(clip[0].key, recognizer.task.tags, template.decode(ids[0].tolist()))
        )
    return found


def timed(
    ways: dict[str, Callable[[], list[Hypothesis]]], rounds: int
) -> tuple[dict[str, list[tuple[float, float]]], dict[str, list[Hypothesis]]]:
    """(Seconds, CPU seconds) of each way in each round, and its last answers. Who begins changes
    from round to round; a first one only warms up.
    """
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    answers = {}
    for turn in range(rounds + 1):
        names = [*ways]
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            begin = time.perf_counter(), time.process_time()
            answers[name] = ways[name]()
            if turn:
                seconds[name].append(
                    (time.perf_counter() - begin[0], time.process_time() - begin[1])
                )
    return seconds, answers


def spread(values: list[float], form: str = "{:.2f}") -> str:
    """Median with quartiles."""
    low, _, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return f"{form.format(median(values))} [{form.format(low)}, {form.format(high)}]"


def main(argv: list[str] | None = None) -> int:
    """Time the three ways, print the table; 1 when batched and single answers differ."""
    args = parser().parse_args(argv)
    torch.set_num_threads(args.threads)
    recognizer = load(args)
    clips = read_clips(args)
    ways = {
        BATCHED: lambda: batched(recognizer, clips),
        PUBLISHED: lambda: published(recognizer, clips, 400 if args.model else args.tokens),
        SINGLE: lambda: single(recognizer, clips),
    }
    seconds, answers = timed(ways, args.rounds)
    heard = sum(len(samples) for _, samples in clips) / SAMPLE_RATE
    print(f"{len(clips)} utterances, {heard:.0f} s of audio, {args.threads} threads, ", end="")
    print(f"batches of {args.batch_size}, {args.rounds} rounds; median [quartiles]\n")
    print(
        "| | utterances/s | real-time factor | characters an answer | times the wall time of "
        "batches | times the CPU time of batches |"
    )
    print("|---|---|---|---|---|---|")
    for name, spent in seconds.items():
        pairs = list(zip(spent, seconds[BATCHED], strict=True))
        ratios = [spread([mine[clock] / batch[clock] for mine, batch in pairs]) for clock in (0, 1)]
        said = sum(len(answer.text) for answer in answers[name]) / len(clips)
        figures = [
            spread([len(clips) / s for s, _ in spent]),
            spread([s / heard for s, _ in spent], "{:.4f}"),
            f"{said:.0f}",
            *ratios,
        ]
        print(f"| {name} | {' | '.join(figures)} |")
    return agree(answers[BATCHED], answers[SINGLE], recognizer.counts)


def agree(together: list[Hypothesis], alone: list[Hypothesis], counts: Counter) -> int:
    """Say whether the answers are the same; 1 when one differs without a tie."""
    pairs = list(zip(together, alone, strict=True))
    different = [a.key for a, b in pairs if (a.text, a.labels) != (b.text, b.labels)]
    unexplained = [a.key for a, b in pairs if a.key in different and "tie" not in a.flags + b.flags]
    print(
        f"\nbatched and single greedy: {len(different)} of {len(alone)} answers differ, "
        f"{len(unexplained)} of them without a tie; ",
        end="",
    )
    print(f"{counts['ties']} of {counts['steps']} steps were ties")
    if unexplained:
        return 1
    return 0


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
