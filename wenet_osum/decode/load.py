"""The Recognizer that options describe (options.py)."""

from __future__ import annotations

import argparse
import os
import warnings
from typing import TYPE_CHECKING

import torch

from wenet_osum.decode import ctc_search, joint, static_prefix
from wenet_osum.decode.aligner import Aligner
from wenet_osum.decode.context import Telling
from wenet_osum.decode.heard_labels import fields_heard
from wenet_osum.decode.modes import ATTENTION_RESCORING, CTC_GREEDY_SEARCH, CTC_MODES
from wenet_osum.decode.options import DecodeOptions, decode_options
from wenet_osum.decode.pipeline import Recognizer
from wenet_osum.models import build, cpu_kernels, quantized
from wenet_osum.models.osum import OsumModel
from wenet_osum.text.template import Template

if TYPE_CHECKING:
    from torch import nn

    from wenet_osum.models.whisper import WhisperPhase
    from wenet_osum.tasks.base import Task


def recognizer(args: argparse.Namespace, merge: bool = True) -> Recognizer:
    """Load the model that ``args.model`` names and make it ready to answer.

    ``merge`` adds LoRA to the weights that it adapts, which is faster. Raises ValueError for bad
    options and unsuitable folders.
    """
    options = decode_options(args)
    torch.set_num_threads(args.threads)
    cpu_kernels.keep_few()
    build.check_folder(args.model)
    template = Template.load(args.model)
    task = None
    if args.task != "auto":
        task = template.task(args.task)

    dtype = getattr(torch, args.dtype)
    model = build.load(args.model, dtype)
    _check(model, template, options, task)
    if merge and isinstance(model, OsumModel) and model.lora is not None:
        model.merge_lora()
    quantized.for_decoding(model, args.quantization)
    model = _on_device(model)
    made = Recognizer(
        model,
        template,
        options,
        task,
        args.prompt,
        args.lang,
        args.batch_size,
        args.max_frames,
        args.longest_s,
        aligner=Aligner(model, template) if options.word_times == "ctc" else None,
        telling=Telling(silent=args.no_context),
    )
    return made.given(args.hotwords, args.previous)


def _check(
    model: OsumModel | WhisperPhase, template: Template, options: DecodeOptions, task: Task | None
) -> None:
    """Raise ValueError for a way of decoding that the model was not made or trained for."""
    mode = options.mode
    if mode in CTC_MODES:
        ctc_search.check_model(model, f"mode {mode}")
        why = ctc_search.refusal(task, mode, fields_heard(model)) if task else None
        if why:
            raise ValueError(why)
        return

    if mode == ATTENTION_RESCORING:
        ctc_search.check_model(model, f"mode {mode}")
    if options.ctc_draft:
        ctc_search.check_model(model, "ctc_draft")
    if options.word_times == "ctc":
        ctc_search.check_model(model, "word_times ctc")
    if isinstance(model, OsumModel):
        joint.check_model(model, template, options.joint)
        if options.static_cache:
            static_prefix.check_model(model.llm)
        if model.config.answers_trained is False:
            warnings.warn(
                "the model was trained with ce_weight 0 only: answers of its LLM to speech were "
                f"never trained; --mode {CTC_GREEDY_SEARCH} is what it learned",
                stacklevel=2,
            )
    elif options.static_cache:
        raise ValueError("static_cache is the LLM's, and phase 1 has none; leave it out")
    elif options.joint:
        names = ", ".join(options.joint)
        raise ValueError(
            f"rescore {names}: weighs in on an LLM, and phase 1 has none; leave it out"
        )


def _on_device(model: nn.Module) -> nn.Module:
    """Move the model to this process's accelerator, if there is one."""
    if torch.accelerator.is_available():
        kind = torch.accelerator.current_accelerator().type
        # torchrun numbers the processes of a machine; each has an accelerator of its own.
        local = int(os.environ.get("LOCAL_RANK", "0"))
        torch.accelerator.set_device_index(local)
        device = torch.device(kind, local)
        model.to(device)
    return model.eval()
