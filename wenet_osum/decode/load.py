"""What the commands that decode have in common: their options, and the Recogniser these describe."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

import torch

from wenet_osum import lookup
from wenet_osum.decode import joint, longform
from wenet_osum.decode.generate import DecodeOptions
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
    search.add_argument("--rescore", type=_weights, default={}, metavar="NAME=WEIGHT,…", help="weights of second opinions beside the LLM, e.g. ctc_prefix=0.5 for a model trained with loss ctc")
    search.add_argument("--free", action="store_true", help="do not limit labels to their label set")
    asking = parser.add_argument_group("prompt")
    asking.add_argument("--prompt", help="wording to ask with; default: the task's first prompt")
    asking.add_argument("--lang", choices=LANGUAGES, default="zh", help="language of the prompt (zh), whatever the utterance's")
    running = parser.add_argument_group("running")
    running.add_argument("--plugins", type=_names, default=[], metavar="PACKAGE,…", help="packages that bring plug-ins of their own, e.g. wenet_osum.small")
    running.add_argument("--batch_size", type=int, default=16, help="most utterances in a batch")
    running.add_argument("--max_frames", type=int, default=24000, help="most frames (10 ms) in a batch, padding included")
    running.add_argument("--longest_s", type=float, default=longform.LONGEST_S, help="seconds of a piece of long audio (28); fewer for a model trained on short utterances")
    running.add_argument("--dtype", choices=DTYPES, default="float32", help="float32 answers do not depend on the batch; bfloat16 is faster on GPUs")
    running.add_argument("--threads", type=int, default=1, help="torch threads a process")

    for name, now in lookup.renamed("options").items():
        parser.add_argument(f"--{name}", action=_Gone, const=now, help=argparse.SUPPRESS)


class _Gone(argparse.Action):
    """An option of former versions, which is answered with what to write now."""

    def __init__(self, option_strings: list[str], dest: str, const: str, **kwargs: Any) -> None:
        super().__init__(option_strings, dest, nargs="?", const=const, default=argparse.SUPPRESS, **kwargs)

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option_string: str | None = None) -> None:
        raise argparse.ArgumentError(self, f"this option is gone; {self.const}")


def _weights(text: str) -> dict[str, float]:
    try:
        return joint.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def options_of(args: argparse.Namespace) -> DecodeOptions:
    """The search the arguments describe. Raises ValueError for bad values."""
    if args.batch_size < 1 or args.max_frames < 1 or args.threads < 1:
        raise ValueError(f"--batch_size {args.batch_size}, --max_frames {args.max_frames} and --threads {args.threads} must be 1 or more")
    lookup.add_plugins(args.plugins)
    joint.rescorer_classes(args.rescore)  # refuses unknown names before the model is loaded
    longform.whole_s(args.longest_s)  # refuses what is too short or too long
    return DecodeOptions(
        num_beams=args.num_beams,
        temperature=args.temperature,
        seed=args.seed,
        repetition_penalty=args.repetition_penalty,
        rescore=args.rescore,
        free=args.free,
        max_tokens=args.max_tokens,
    )


def recogniser(args: argparse.Namespace) -> Recogniser:
    """Load the model that ``args.model`` names and make it ready to answer. Raises ValueError for bad options and unsuitable folders."""
    options = options_of(args)
    torch.set_num_threads(args.threads)
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(KERNELS))  # read at the first kernel
    template = Template.load(args.model)
    task = None if args.task == "auto" else template.task(args.task)
    model = build.load(args.model, DTYPES[args.dtype])
    if not isinstance(model, OsumModel):
        raise ValueError(f"{args.model} holds a {type(model).__name__} of phase 1, which has no LLM; give a folder of phase 2 or later")
    joint.check_model(model, template, options.joint)
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
