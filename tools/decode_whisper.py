#!/usr/bin/env python3
"""Transcribe a list with a published Whisper and its own decoder: the row that every recipe is compared with.

    python tools/decode_whisper.py --model openai/whisper-base --list data/test/asr.list --language en --out exp/whisper/asr
    python -m wenet_osum.bin.score --ref data/test/asr.list --hyp exp/whisper/asr --task asr --normalizer whisper_en --out exp/whisper/score

Audio is padded to 30 s, as Whisper was trained; longer audio is refused and counted. A run that was stopped goes on.
Exit status: 0 done, 1 a fault.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import AutoProcessor, WhisperForConditionalGeneration

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from wenet_osum.dataset.audio import decode  # noqa: E402
from wenet_osum.dataset.drop import Drop  # noqa: E402
from wenet_osum.decode.pipeline import Job, group_jobs, read_list  # noqa: E402
from wenet_osum.records import SAMPLE_RATE, Hypothesis  # noqa: E402
from wenet_osum.tasks import parse  # noqa: E402

LONGEST_S = 30.0  # of Whisper's input
TASK = parse("asr")


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="openai/whisper-base", help="folder or hub name")
    parser.add_argument("--list", required=True, help="manifest or data.list of shards")
    parser.add_argument("--language", help="such as en or zh; default: Whisper decides")
    parser.add_argument("--num_beams", type=int, default=1, help="beams; 1 is greedy")
    parser.add_argument("--batch_size", type=int, default=8, help="utterances per batch")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--out", required=True, help="folder for hyp.jsonl")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    try:
        written = _transcribe(args)
    except (ValueError, OSError) as error:
        print(f"decode_whisper.py: {error}", file=sys.stderr)
        return 1
    print(f"{args.out}/hyp.jsonl: {written} utterances")
    return 0


def _transcribe(args: argparse.Namespace) -> int:
    """Append an answer for every job that has none yet; returns how many lines there are."""
    jobs, _ = read_list(args.list)
    path = Path(args.out) / "hyp.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    done = _answered(path)
    missing = [job for job in jobs if job.key not in done]
    if not missing:
        return len(done)
    processor = AutoProcessor.from_pretrained(args.model)
    model = WhisperForConditionalGeneration.from_pretrained(args.model, dtype=torch.float32).eval()
    if torch.accelerator.is_available():
        model.to(torch.accelerator.current_accelerator())
    with open(path, "a", encoding="utf-8", newline="\n") as out:
        for group in group_jobs(missing, args.batch_size, sys.maxsize):
            for answer in _answers(model, processor, group, args):
                out.write(answer.to_json() + "\n")
            out.flush()
    return len(jobs)


def _answered(path: Path) -> set[str]:
    """Read the keys of a file of answers; a last line that was cut off is removed."""
    if not path.exists():
        return set()
    whole = [line for line in path.read_text(encoding="utf-8").splitlines(True) if line.endswith("\n")]
    path.write_text("".join(whole), encoding="utf-8")
    return {json.loads(line)["key"] for line in whole}


def _answers(
    model: WhisperForConditionalGeneration,
    processor: AutoProcessor,
    group: list[Job],
    args: argparse.Namespace,
) -> Iterator[Hypothesis]:
    """Transcribe one batch; what cannot be read becomes an answer with its error."""
    keys, audio = [], []
    for job in group:
        try:
            audio.append(_audio(job))
            keys.append(job.key)
        except (Drop, OSError, ValueError) as error:
            yield Hypothesis(job.key, TASK.tags, "", error=str(error))
    if not keys:
        return
    features = processor(audio, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
    ids = model.generate(
        features.to(model.device, model.dtype),
        language=args.language,
        task="transcribe",
        num_beams=args.num_beams,
    )
    for key, text in zip(keys, processor.batch_decode(ids, skip_special_tokens=True), strict=True):
        yield Hypothesis(key, TASK.tags, text.strip(), transcript=text.strip())


def _audio(job: Job) -> object:
    """Decode the audio of a job. Raises Drop for what is longer than Whisper's input."""
    if job.error:
        raise Drop(job.error)
    _, source = job.read()
    samples = decode(source if isinstance(source, bytes) else source.read_bytes())
    if len(samples) > LONGEST_S * SAMPLE_RATE:
        raise Drop(f"longer than {LONGEST_S:g} s", f"{len(samples) / SAMPLE_RATE:.1f} s")
    return samples


if __name__ == "__main__":
    sys.exit(main())
