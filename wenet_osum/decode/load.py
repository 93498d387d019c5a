"""What the commands that decode have in common: their options, and the Recogniser these describe."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

import torch

from wenet_osum.decode import longform
from wenet_osum.decode.generate import DecodeOptions, check_joint
from wenet_osum.decode.pipeline import Recogniser
from wenet_osum.models import build
from wenet_osum.models.osum import OsumModel
from wenet_osum.text.template import LANGUAGES, Template

if TYPE_CHECKING:
    from torch import nn

KERNELS = 64  # that oneDNN keeps on a CPU. Its own 1024, one a shape, take half a GiB when hours of audio bring a new length with every batch
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of decoding."""
    search = parser.add_argument_group("search")
    search.add_argument("--num_beams", type=int, default=1, help="beams of free text; 1 is greedy")
    search.add_argument("--temperature", type=float, default=0.0, help="above 0: sampling, drawn by seed and key; below 1e-6 greedy")
    search.add_argument("--seed", type=int, default=777, help="of sampling")
    search.add_argument("--repetition_penalty", type=float, default=1.0, help="above 1: tokens already said are less likely")
    search.add_argument("--max_tokens", type=int, help="most tokens of free text; default: by the length of the audio")
    search.add_argument("--ctc_weight", type=float, default=0.0, help="share of the adapter's CTC in transcripts (0), for a model trained with model.ctc_weight")
    search.add_argument("--tone_weight", type=float, default=0.0, help="share of what the adapter's frames tell in the times of words (0), for a model trained with model.tone_weight")
    search.add_argument("--free", action="store_true", help="do not limit labels to their label set")
    asking = parser.add_argument_group("prompt")
    asking.add_argument("--prompt", help="wording to ask with; default: the task's first prompt")
    asking.add_argument("--lang", choices=LANGUAGES, default="zh", help="language of the prompt (zh), whatever the utterance's")
    running = parser.add_argument_group("running")
    running.add_argument("--batch_size", type=int, default=16, help="most utterances in a batch")
    running.add_argument("--max_frames", type=int, default=24000, help="most frames (10 ms) in a batch, padding included")
    running.add_argument("--longest_s", type=float, default=longform.LONGEST_S, help="seconds of a piece of long audio (28); fewer for a model trained on short utterances")
    running.add_argument("--dtype", choices=DTYPES, default="float32", help="float32 answers do not depend on the batch; bfloat16 is faster on GPUs")
    running.add_argument("--threads", type=int, default=1, help="torch threads a process")


def options_of(args: argparse.Namespace) -> DecodeOptions:
    """The search the arguments describe. Raises ValueError for bad values."""
    if args.batch_size < 1 or args.max_frames < 1 or args.threads < 1:
        raise ValueError(f"--batch_size {args.batch_size}, --max_frames {args.max_frames} and --threads {args.threads} must be 1 or more")
    longform.whole_s(args.longest_s)  # refuses what is too short or too long
    return DecodeOptions(
        num_beams=args.num_beams,
        temperature=args.temperature,
        seed=args.seed,
        repetition_penalty=args.repetition_penalty,
        ctc_weight=args.ctc_weight,
        tone_weight=args.tone_weight,
        free=args.free,
        max_tokens=args.max_tokens,
    )


def recogniser(args: argparse.Namespace) -> Recogniser:
    """Load the model that ``args.model`` names and make it ready to answer. Raises ValueError for bad options and unsuitable folders."""
    options = options_of(args)
    torch.set_num_threads(args.threads)
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(KERNELS))  # read at the first kernel
    template = Template.load(args.model)
    if options.joint:
        check_joint(template)
    task = None if args.task == "auto" else template.task(args.task)
    model = build.load(args.model, DTYPES[args.dtype])
    if not isinstance(model, OsumModel):
        raise ValueError(f"{args.model} holds a {type(model).__name__} of phase 1, which has no LLM; give a folder of phase 2 or later")
    if model.lora is not None:
        model.merge_lora()
    return Recogniser(_placed(model), template, options, task, args.prompt, args.lang, args.batch_size, args.max_frames, args.longest_s)


def _placed(model: nn.Module) -> nn.Module:
    """The model on this process's accelerator, if there is one."""
    if not torch.accelerator.is_available():
        return model.eval()
    kind, local = torch.accelerator.current_accelerator().type, int(os.environ.get("LOCAL_RANK", 0))
    torch.accelerator.set_device_index(local)
    return model.to(torch.device(kind, local)).eval()
