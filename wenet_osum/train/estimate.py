"""Count what a phase costs, before anything is downloaded or bought.

Parameters, FLOPs and memory of one micro-batch are counted. The model is built on the meta device
at full depth, where tensors have shapes and no numbers, and one forward and backward pass runs
there.

FLOPs    of every matrix product and convolution of that pass (torch's FlopCounterMode): a frozen
         weight costs no weight gradient, a frozen part before all trained ones no backward pass.
         Attention is counted by formula, 4 · heads · queries · keys · channels forward and twice
         that backward, causal attention half of it. Recomputation is kept apart: it keeps the
         device busy, but is no work of the model.
memory   weights, gradients, AdamW's moments, what autograd keeps of the pass, and one chunk of
         logits. The first three are exact. Activations are those of a model in bfloat16 (or
         float32) throughout, without the allocator's losses, the temporaries of single operations,
         and the float32 copies that autocast and peft make: leave a fifth of the device free.
         Of further losses (model.losses) the scores of CTC are counted. At ``ce_weight`` 0 the
         LLM, or phase 1's decoder, only lies in memory: it does not run. FSDP gathers a layer at a
         time, and for the whole of a pass what is in no layer, such as the token embeddings.

Letters: B utterances of a micro-batch, A answer tokens of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, WhisperForConditionalGeneration

from wenet_osum import dist, lookup
from wenet_osum.config import ModelConfig, TrainConfig
from wenet_osum.dataset.estimate import BOUNDARIES
from wenet_osum.models import quantized, split, time_marks, trainable
from wenet_osum.models.build import set_encoder_conf
from wenet_osum.models.loss import CHUNK
from wenet_osum.models.objective import Objective, Speech, UtteranceLosses, loss_class
from wenet_osum.models.osum import OsumConfig, OsumModel
from wenet_osum.models.whisper import WhisperPhase
from wenet_osum.records import FRAME_S, Batch, Utterance
from wenet_osum.text import ctc_classes
from wenet_osum.train.meta_pass import run_pass

# Bytes of a logit where most of it lives at once, in the backward pass of cross-entropy: the
# gradient of its log-softmax and its own, in float32. The log-softmax itself is kept, or of several
# chunks computed again (models/loss.py).
HEAD_BYTES, AGAIN_BYTES = 8, 4
# Of a score of CTC: the log-softmax, which is kept, and in its backward pass the two gradients.
KEPT_SCORE_BYTES, SCORE_GRADIENT_BYTES = 4, 8


@dataclass
class Mean:
    """The mean utterance that costs are counted for."""

    # Seconds of audio.
    seconds: float = 8.0
    prompt_tokens: int = 20
    # The end of text included.
    answer_tokens: int = 40

    @property
    def frames(self) -> int:
        """Return how many feature frames it has."""
        return max(1, round(self.seconds / FRAME_S))

    def positions(self, model: nn.Module) -> int:
        """Count the positions it takes in the LLM, or in phase 1's decoder.

        The adapter says how many of them are speech.
        """
        frames = torch.tensor([self.frames])
        speech = int(model.speech_tokens(frames))
        return self.prompt_tokens + BOUNDARIES + speech + self.answer_tokens


@dataclass
class Estimate:
    """The counted costs of one micro-batch that fills the budgets with mean utterances."""

    # The parts, their parameters, and what trains, as a text.
    table: str
    utterances: int
    mean: Mean
    # Positions of a mean utterance in the LLM.
    positions: int
    parameters: int
    trained: int
    # FLOPs of the forward and the backward pass.
    flops: float
    # FLOPs of what checkpointing runs again.
    recomputed: float
    # Bytes per device, by what they hold.
    memory: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> float:
        """Return the bytes per device."""
        return sum(self.memory.values())

    def audio_rate(self, flops_a_second: float) -> float:
        """Return hours of audio per hour and device, at this many FLOP/s in use."""
        audio_s = self.utterances * self.mean.seconds
        return audio_s * flops_a_second / (self.flops + self.recomputed)


def meta_model(
    conf: ModelConfig, whisper: PreTrainedConfig, llm: PreTrainedConfig | None
) -> nn.Module:
    """Build the model of ``conf`` with these sizes on the meta device; whisper has no ``llm``."""
    with torch.device("meta"):
        if conf.kind == "whisper":
            return _meta_whisper(conf, whisper)
        assert llm is not None, "the command asks for the sizes of an LLM"
        config = OsumConfig(
            encoder=whisper.to_dict(),
            llm=llm.to_dict(),
            adapter=conf.adapter,
            adapter_conf=conf.adapter_conf,
        )
        model = OsumModel(config)
        set_encoder_conf(model, conf.encoder_conf)
        if conf.lora:
            model.add_lora(conf.lora)
        if conf.time_marks:
            time_marks.begin(model, conf.time_marks, lambda _: [0])
        return model


def _meta_whisper(conf: ModelConfig, whisper: PreTrainedConfig) -> nn.Module:
    model = WhisperPhase(WhisperForConditionalGeneration(whisper))
    for entry in conf.losses:
        if loss_class(entry["name"]).needs_logits:
            source = entry.get("classes")
            count = whisper.vocab_size if source is None else ctc_classes.count(source)
            model.add_ctc_head(count)
    set_encoder_conf(model, conf.encoder_conf)
    return model


def estimate(
    conf: TrainConfig,
    whisper: PreTrainedConfig,
    llm: PreTrainedConfig | None,
    mean: Mean | None = None,
    devices: int = 1,
) -> Estimate:
    """Count one micro-batch of ``conf`` on each of ``devices``.

    Raises ValueError for train_parts that match nothing, or train what does not run, and for
    utterances beyond the budgets.
    """
    mean = mean or Mean()
    lookup.add_plugins(conf.plugins)
    model = meta_model(conf.model, whisper, llm)
    groups = trainable.apply_train_parts(model, conf.train_parts, conf.optim)
    table = trainable.table(model, groups)
    positions = mean.positions(model)
    min_frames = getattr(model.encoder, "min_frames", 0)
    count = _utterances(conf, mean, positions, min_frames)

    parameters, trained = _count(model)
    memory = _weights(model, conf, devices)
    exchanged = _exchanged(model, conf, devices) if conf.engine == "fsdp" else 0
    model.to(torch.bfloat16 if conf.dtype == "bfloat16" else torch.float32)
    batch = batch_of(model, mean, count, "meta", states_after(model, conf))
    if conf.model.ce_weight == 0:
        # The entries say whether label queries run.
        model.objective = Objective(0.0, [(1.0, SpeechAlone())], conf.model.losses)
    costs = run_pass(model.train(), batch, conf.checkpointing)

    memory["activations kept for the backward pass"] = costs.kept
    has_llm = llm is not None and conf.model.kind != "whisper"
    vocabulary = llm.vocab_size if has_llm else whisper.vocab_size
    logits = _logits(conf, model, mean, count, vocabulary, costs.answering)
    memory |= logits
    # Before layers are computed again the logits are gone, before the last exchange all of it.
    counted = sum(logits.values())
    if costs.again > counted:
        memory["a layer computed again, beyond the logits"] = costs.again - counted
        counted = costs.again
    counted += costs.kept
    if exchanged > counted:
        memory["gradients of what is in no layer, beyond that"] = exchanged - counted
    return Estimate(
        table=table,
        utterances=count,
        mean=mean,
        positions=positions,
        parameters=parameters,
        trained=trained,
        flops=costs.flops,
        recomputed=costs.recomputed,
        memory=memory,
    )


def _logits(
    conf: TrainConfig,
    model: nn.Module,
    mean: Mean,
    count: int,
    vocabulary: int,
    answering: float,
) -> dict[str, float]:
    """Count the bytes of logits of ``count`` utterances, and of CTC's scores, beyond what the pass
    keeps; ``answering`` of it are kept by the LLM or decoder."""
    rows: dict[str, float] = {}
    chunk = 0
    if conf.model.ce_weight:
        answers = count * mean.answer_tokens
        width = HEAD_BYTES if answers <= CHUNK else HEAD_BYTES + AGAIN_BYTES
        chunk = min(CHUNK, answers) * vocabulary * width
        rows["one chunk of logits"] = chunk
    scores = count * _scores(conf, model, mean, vocabulary)
    if scores:
        # The chunk of logits, and what answers, are gone before the gradients of the scores come.
        gradients = max(0, scores * SCORE_GRADIENT_BYTES - chunk - answering)
        rows["scores of CTC"] = scores * KEPT_SCORE_BYTES + gradients
    return rows


def _scores(conf: TrainConfig, model: nn.Module, mean: Mean, vocabulary: int) -> int:
    """Count the scores that CTC computes for a mean utterance: its states times the classes.

    A commitment has a difference for every channel of a state, which costs what a score does.
    """
    frames = torch.tensor([mean.frames])
    of_whisper = conf.model.kind == "whisper"
    count = model.encoder.output_lengths if of_whisper else model.speech_tokens
    states = int(count(frames))
    total = 0
    for entry in conf.model.losses:
        if not loss_class(entry["name"]).needs_logits:
            continue
        classes = vocabulary
        if entry.get("classes") is not None:
            classes = ctc_classes.count(entry["classes"])
        # Of an LLM one of the tokens is the blank.
        beside = 1 if of_whisper or entry.get("classes") is not None else 0
        channels = 0
        if entry.get("commitment") and not of_whisper:
            channels = model.get_input_embeddings().embedding_dim
        total += states * (classes + beside + channels)
    return total


class SpeechAlone:
    """Stands in for the losses of a run without answers: it costs next to nothing, and its gradient
    reaches all that makes speech."""

    kinds = ("osum", "whisper")
    needs_logits = False

    def targets(self, utterance: Utterance) -> dict[str, Tensor]:
        """Return nothing: it asks for no target."""
        return {}

    def __call__(self, speech: Speech, targets: dict[str, Tensor]) -> UtteranceLosses:
        """Sum the states (B, N, D) of each utterance, and what label queries hear: (B,)."""
        total = speech.states.sum((1, 2))
        for heard in speech.labels.values():  # (B, D)
            total = total + heard.sum(1)
        return UtteranceLosses(total)


def _utterances(conf: TrainConfig, mean: Mean, positions: int, min_frames: int) -> int:
    """Count the mean utterances that fit into a micro-batch."""
    budget = conf.batch
    frames = max(mean.frames, min_frames)
    count = min(
        budget.max_frames // frames,
        budget.max_tokens // positions,
        budget.max_utterances,
    )
    if count < 1:
        raise ValueError(
            f"an utterance of {frames} frames and {positions} tokens does not fit "
            f"batch.max_frames {budget.max_frames} "
            f"and batch.max_tokens {budget.max_tokens}; raise them, or lower --seconds"
        )
    return count


def _count(module: nn.Module) -> tuple[int, int]:
    """Count the numbers of all parameters, and of those that train."""
    total = trained = 0
    for p in module.parameters():
        total += p.numel()
        if p.requires_grad:
            trained += p.numel()
    return total, trained


def _weights(model: nn.Module, conf: TrainConfig, devices: int) -> dict[str, float]:
    """Count the bytes per device of weights, gradients and moments.

    FSDP shares them all out, DDP keeps them whole. Trained weights are in float32.
    """
    total, trained = _count(model)
    frozen = total - trained
    half = conf.dtype == "bfloat16"
    width = 2 if half else 4
    share = devices if conf.engine == "fsdp" else 1
    small = 0
    if conf.model.quantization == quantized.NF4:
        small = sum(layer.weight.numel() for layer in quantized.frozen_layers(model))
    rows = {
        f"frozen weights, {width} bytes each": (frozen - small) * width / share,
        "trained weights, 4 bytes each": trained * 4 / share,
        "gradients, 4 bytes each": trained * 4 / share,
        "AdamW's moments, 8 bytes each": trained * 8 / share,
    }
    if small:
        rows["frozen weights of 4 bits, with their scales"] = small * quantized.NF4_BYTES
    if conf.engine == "fsdp":
        gathered = _gathered(model)
        rows["the largest layer gathered, twice"] = 2 * gathered.largest * width
        rows["what is in no layer, gathered"] = gathered.rest * width
    elif half:
        rows["trained weights in bfloat16 for the pass, 2 bytes each"] = trained * 2
    return rows


class Gathered(NamedTuple):
    """Numbers of parameters that FSDP gathers."""

    # Of the largest layer.
    largest: int
    # Of what is in no layer, and of those that train.
    rest: int
    trained_rest: int


def _gathered(model: nn.Module) -> Gathered:
    """Count what FSDP gathers, as dist.py shards it."""
    rest, trained = _count(model)
    largest = 0
    for layer in dist.sharded_layers(model):
        size, trained_size = _count(layer)
        largest = max(largest, size)
        rest -= size
        trained -= trained_size
    return Gathered(largest, rest, trained)


def _exchanged(model: nn.Module, conf: TrainConfig, devices: int) -> float:
    """Count what FSDP's last exchange of gradients, of what is in no layer, takes beyond what is
    gathered, which has gone by then.

    Gradients of the pass are copied to float32, and let go; then comes this device's share of their
    sum.
    """
    width = 2 if conf.dtype == "bfloat16" else 4
    gathered = _gathered(model)
    each = max(width + 4, 4 + 4 / devices)
    exchanged = gathered.trained_rest * each
    return exchanged - (gathered.rest + 2 * gathered.largest) * width


def states_after(model: nn.Module, conf: TrainConfig) -> int | None:
    """Return how many layers of the encoder lie below the states that training reads.

    None when training makes features. Raises ValueError for an encoder that cannot be run in two
    parts.
    """
    if conf.features != "encoded":
        return None
    return split.layers_below(model.encoder, conf.cache.after)


def batch_of(
    model: nn.Module, mean: Mean, count: int, device: str, after: int | None = None
) -> Batch:
    """Make a batch of ``count`` mean utterances.

    Features are random, or the encoder's states after so many layers. Every token is id 0, lengths
    lie on the CPU.
    """
    encoder = model.encoder
    length, rows, channels = mean.frames, mean.frames, encoder.mels
    if after is not None:
        length, channels = encoder.output_lengths(mean.frames), encoder.width
        rows = int(encoder.kept_lengths(torch.tensor(length), after))
    prompts, answers = count * mean.prompt_tokens, count * mean.answer_tokens
    return Batch(
        keys=[""] * count,
        tasks=["asr"] * count,
        features=torch.randn(count, rows, channels, device=device),
        feature_lengths=torch.full((count,), length),
        states_after=after,
        prompt_ids=torch.zeros(prompts, dtype=torch.int64, device=device),
        prompt_lengths=torch.full((count,), mean.prompt_tokens),
        answer_ids=torch.zeros(answers, dtype=torch.int64, device=device),
        answer_lengths=torch.full((count,), mean.answer_tokens),
        answer_weights=torch.ones(answers, device=device),
    )
