"""Run configurations: yaml in, typed dataclasses out. Every fault of a file is reported at once.

Each field carries a sentence that says what it is and what it counts. Nothing outside these tables configures a run.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from wenet_osum.typed import ConfigError, apply_override, build


@dataclass
class LoraConfig:
    """Low-rank adapters of the LLM, by peft."""

    r: int = 8  # rank
    alpha: float = 32.0  # scale is alpha / r
    dropout: float = 0.0
    targets: list[str] = field(default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj"])  # module names


@dataclass
class EncoderConfig:
    """The speech encoder of kind osum, where it is not a Whisper's."""

    name: str = "whisper"  # file name in models/encoder
    source: str | None = None  # folder or hub name


@dataclass
class ModelConfig:
    """What is built, and from which folders or hub names."""

    kind: Literal["osum", "whisper"] = "osum"  # whisper: phase 1, encoder and decoder without the LLM
    whisper: str | None = None  # folder or hub name of a Whisper model; its encoder is used (kind whisper: all of it)
    encoder: EncoderConfig | None = None  # another encoder, in the place of whisper
    llm: str | None = None  # folder or hub name of a causal LLM with its tokenizer
    # settings of the encoder: pad_s, silence up to so many seconds (default 0)
    encoder_conf: dict[str, Any] = field(default_factory=dict)
    adapter: str = "conv_transformer"  # file name in models/adapter
    adapter_conf: dict[str, Any] = field(default_factory=dict)  # arguments of the adapter
    init_parts: dict[str, str] = field(default_factory=dict)  # part → checkpoint folder whose weights it takes over, e.g. encoder: exp/phase1/final
    init_from: str | None = None  # a finished model's folder, weights only; replaces whisper, llm and adapter
    lora: LoraConfig | None = None  # adds adapters to the LLM
    adapter_init: str | None = None  # file name in models/adapter_init; None: the adapter's own initial weights
    ce_weight: float = 1.0  # weight of the answers' cross-entropy; at 0 the LLM (kind whisper: the decoder) does not run
    losses: list[dict[str, Any]] = field(default_factory=list)  # further losses: {name: file in models/losses, weight: above 0, …its own}
    target_tokenization: Literal["by_field", "whole"] = "by_field"  # targets encoded field by field, or as one string (converted checkpoints)

    @property
    def encoder_source(self) -> str | None:
        """Folder or hub name of the encoder, whichever key names it."""
        return self.encoder.source if self.encoder else self.whisper


@dataclass
class PartConfig:
    """How one part, named by a pattern, is trained."""

    lr: float | None = None  # peak learning rate; None: optim.lr
    weight_decay: float | None = None  # None: optim.weight_decay
    unfreeze: float = 0.0  # share of the run's steps after which the part begins to train; 0: at once


@dataclass
class SpecAugmentConfig:
    """Masks on the log-mel features (Park et al., 2019, arXiv 1904.08779), and WeNet-style time substitution."""

    time_masks: int = 2  # masks an utterance
    max_time: int = 50  # longest mask, frames; never above a fifth of the utterance
    mel_masks: int = 2  # masks an utterance
    max_mels: int = 10  # widest mask, mel bins
    substitutions: int = 0  # stretches replaced by an earlier one
    max_substitution: int = 30  # longest stretch, frames


@dataclass
class AugmentConfig:
    """Changes to training audio, drawn by (seed, epoch, key)."""

    speeds: list[float] = field(default_factory=lambda: [1.0])  # speed factors, drawn evenly; word times scale along
    noise: str | None = None  # list of noise recordings, a path a line
    noise_prob: float = 0.0  # share of utterances that get noise
    noise_snr_db: tuple[float, float] = (5.0, 25.0)  # range of the signal-to-noise ratio, dB
    reverb: str | None = None  # list of room impulse responses, a path a line
    reverb_prob: float = 0.0  # share of utterances that get reverberation
    effects: list[dict[str, Any]] = field(default_factory=list)  # further effects in order: {name: file in dataset/effects, prob: share, …its own}
    gain_db: tuple[float, float] = (0.0, 0.0)  # range of the level change, dB
    spec_augment: SpecAugmentConfig | None = None  # None: no masks


@dataclass
class CacheConfig:
    """States of the frozen lower part of the encoder, kept on disk with ``features: encoded``."""

    after: int | None = None  # layers of the encoder below the states; None: all of them
    dir: str = "exp/states"  # folder of all such states; many runs may share it
    dtype: Literal["float16", "float32"] = "float16"  # of the states on disk
    # augmented versions of each training utterance: epoch e trains on version e mod so many
    variants: int = 1


REPEAT_PROMPT = "Repeat the following text word for word:"
DEFAULT_TARGET_TOKENS = 400  # longest target of a task, where a table says nothing about it


def _plain_name(task: str) -> str:
    """A task's name or tags without spaces, in lower case."""
    return task.replace(" ", "").lower()


@dataclass
class FilterConfig:
    """What is left out, and counted by reason."""

    min_s: float = 0.1  # shortest audio, s
    max_s: float = 30.0  # longest audio, s
    # longest target, tokens: a number for all tasks, or a table {task: number} whose ``default`` is
    # for those it does not name
    max_target_tokens: int | dict[str, int] = field(default_factory=lambda: {"default": 400, "srwt": 2400})

    def target_limit(self, name: str, tags: str) -> int:
        """Look up the longest target of a task, tokens, by its name or its tags, in either case."""
        if isinstance(self.max_target_tokens, int):
            return self.max_target_tokens
        table = {_plain_name(key): limit for key, limit in self.max_target_tokens.items()}
        own = table.get(_plain_name(name), table.get(_plain_name(tags)))
        return table.get("default", DEFAULT_TARGET_TOKENS) if own is None else own


@dataclass
class BatchConfig:
    """Budgets of one micro-batch on one process."""

    max_frames: int = 12000  # utterances × longest, in 10 ms frames: what the encoder computes
    max_tokens: int = 8000  # prompt + speech + answer tokens of all utterances: what the LLM computes
    max_utterances: int = 512  # utterances
    # frames an utterance counts at least; at least those of model.encoder_conf.pad_s, which
    # training puts here
    min_frames: int = 0
    # shards of a source shuffled together, fewer where many sources share 32 open files; lists
    # count as shards of 1,000 utterances
    window: int = 8


@dataclass
class SourceConfig:
    """A list in the training mixture."""

    name: str
    list: str  # data.list of shards, or a raw list (JSON lines)
    weight: float = 1.0  # expected passes over the list an epoch, any positive real
    tasks: dict[str, float] = field(default_factory=dict)  # task → share of an utterance's draws; beats its own task
    where: dict[str, str] = field(default_factory=dict)  # keep only utterances whose columns have these values, e.g. lang: zh


@dataclass
class MixtureConfig:
    """How the sources share an epoch (dataset/temperature.py)."""

    # T of each epoch, the last one of all that follow: shares go by the size of a source to the power of 1/T
    temperature: list[float] = field(default_factory=lambda: [1.0])


@dataclass
class DataConfig:
    """What is trained on and tested on."""

    train: list[SourceConfig] = field(default_factory=list)
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    dev: dict[str, str] = field(default_factory=dict)  # task → list


@dataclass
class OptimConfig:
    """The optimizer and its learning-rate schedule, counted in optimizer steps."""

    name: Literal["adamw", "muon"] = "adamw"  # muon: Muon for the matrices inside layer stacks, AdamW for everything else
    lr: float = 1e-4  # peak learning rate of AdamW
    muon_lr: float = 4e-3  # peak learning rate of Muon; a part with its own lr takes it in the same proportion to optim.lr
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-6
    weight_decay: float = 0.01  # not on norms, biases and embeddings' gains
    warmup_steps: int = 1000
    schedule: Literal["inverse_sqrt", "cosine", "linear", "constant"] = "inverse_sqrt"
    min_lr_ratio: float = 0.01  # floor of cosine and linear, share of the peak
    clip: float = 5.0  # largest gradient norm
    accumulation: int = 1  # micro-batches a step and process


@dataclass
class RepeatGateConfig:
    """What an LLM has to do before it is trained in a chat (train/repeat_gate.py)."""

    utterances: int = 32  # how many transcripts it is asked to repeat; 0: there is no gate
    max_wer: float = 5.0  # highest word error rate of what it repeats, %
    prompt: str = REPEAT_PROMPT  # how it is asked


@dataclass
class TrainConfig:
    """One phase of training."""

    seed: int = 777
    plugins: list[str] = field(default_factory=list)  # packages that bring plug-ins of their own, e.g. wenet_osum.small
    data: str | None = None  # yaml with the data tables (DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train_parts: dict[str, PartConfig] = field(default_factory=dict)  # name pattern (glob) → how it trains; what no pattern names is frozen
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    filter: FilterConfig = field(default_factory=FilterConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    loss_weight: dict[str, float] = field(default_factory=dict)  # field name → weight of its tokens, default 1
    labels: dict[str, list[str]] = field(default_factory=dict)  # field name → the user's own label set
    prompts: str | None = None  # yaml {task tag: {zh: […], en: […]}} that replaces the built-in prompts
    lowercase: bool = False  # lower-case transcripts (the published checkpoints want it)
    # plain: prompt, speech, answer, for base LLMs and converted checkpoints; chat: the LLM's own
    # chat template, for Instruct LLMs; None: that of model.init_from, else plain
    template: Literal["plain", "chat"] | None = None
    system: str | None = None  # system message of a chat; None: that of model.init_from, else the chat template's own
    repeat_gate: RepeatGateConfig = field(default_factory=RepeatGateConfig)  # with template chat
    max_steps: int | None = None  # optimizer steps
    max_epochs: int | None = None  # passes over the mixture
    max_hours: float | None = None  # wall clock over all runs of this experiment, h
    patience: int | None = None  # evaluations without a better dev loss before stopping
    eval_every: int = 1000  # steps between dev evaluations and checkpoints
    log_every: int = 50  # steps between log lines
    log_keys: bool = False  # write the utterances of every step to exp_dir/keys, a file a process: what was trained on, and in which order
    keep: int = 5  # newest checkpoints kept; the best one is always kept
    engine: Literal["ddp", "fsdp"] = "ddp"
    dtype: Literal["float32", "bfloat16"] = "float32"
    checkpointing: bool = False  # recompute activations in the backward pass
    rehearsal: bool = True  # run the largest micro-batches before step 1
    # where training's log-mel features are made: by the data processes, or beside the model;
    # encoded: not at all, states of the frozen encoder are computed once and read from disk
    features: Literal["cpu", "device", "encoded"] = "cpu"
    cache: CacheConfig = field(default_factory=CacheConfig)  # of features: encoded
    workers: int = 0  # data processes a training process
    prefetch: int = 4  # micro-batches a worker holds ready
    threads: int = 1  # torch threads a process, CPU


def load(path: str | Path, cls: type = TrainConfig, overrides: list[str] | None = None) -> Any:
    """Read a yaml file into ``cls``.

    ``overrides`` are ``a.b=value`` with the value in yaml notation. Raises ConfigError that lists every unknown key,
    wrong type and bad pair.
    """
    try:
        tree = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        raise ConfigError(f"config {path} does not exist") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"config {path} is not valid yaml: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"config {path} must be a table of keys, got {type(tree).__name__}")
    for override in overrides or []:
        apply_override(tree, override)
    return from_dict(tree, cls, str(path))


def from_dict(tree: dict[str, Any], cls: type = TrainConfig, where: str = "config") -> Any:
    """Build ``cls`` from plain tables. Raises ConfigError with all faults."""
    faults: list[str] = []
    built = build(cls, tree, "", faults)
    if not faults:
        faults += check(built)
    if faults:
        raise ConfigError("\n".join([f"{where}: {len(faults)} fault{'s' * (len(faults) > 1)}", *(f"  - {f}" for f in faults)]))
    return built


def check(conf: Any) -> list[str]:
    """Rules between fields; returns the broken ones as sentences."""
    faults = []
    if isinstance(conf, TrainConfig):
        model = conf.model
        sources = [n for n in ("whisper", "encoder", "llm") if getattr(model, n)]
        if model.init_from and sources:
            faults.append(f"model.init_from and model.{sources[0]}: give one of them; init_from brings all parts")
        if not model.init_from and not model.encoder_source:
            faults.append("model.whisper: a folder or hub name is needed (or model.encoder with its source, or model.init_from)")
        if model.encoder and model.whisper:
            faults.append("model.whisper and model.encoder: give one of them; both name the encoder")
        if model.encoder and model.kind == "whisper":
            faults.append("model.encoder: kind whisper takes its encoder from model.whisper")
        if model.kind == "osum" and not model.init_from and not model.llm:
            faults.append("model.llm: a folder or hub name is needed for kind osum (or model.init_from)")
        if model.kind == "whisper" and (model.llm or model.lora):
            faults.append("model.llm and model.lora: kind whisper has no LLM")
        faults += _check_template(conf)
        faults += _check_losses(model)
        faults += _check_cache(conf) if conf.features == "encoded" else []
        if not conf.train_parts:
            faults.append('train_parts: name what trains, e.g. {"adapter.*": {}}')
        if conf.max_steps is None and conf.max_epochs is None and conf.max_hours is None:
            faults.append("max_steps, max_epochs or max_hours: one is needed to end the run")
        faults += _check_unfreeze(conf)
        if conf.optim.name == "muon" and conf.engine == "fsdp":
            faults.append("optim.name muon: needs whole matrices, which engine fsdp cuts; use engine ddp or optim.name adamw")
        for name in ("noise", "reverb"):
            if getattr(conf.augment, f"{name}_prob") > 0 and not getattr(conf.augment, name):
                faults.append(f"augment.{name}_prob {getattr(conf.augment, f'{name}_prob')}: needs augment.{name}, a list of recordings")
        limits = conf.filter.max_target_tokens
        for task, limit in limits.items() if isinstance(limits, dict) else [("", limits)]:
            if limit < 1:
                name = f"filter.max_target_tokens.{task}" if task else "filter.max_target_tokens"
                faults.append(f"{name} {limit}: must be 1 or more; a task is left out by the mixture's tasks")
        if any(speed <= 0 for speed in conf.augment.speeds) or not conf.augment.speeds:
            faults.append(f"augment.speeds {conf.augment.speeds}: needs at least one factor, all above 0")
    if isinstance(conf, DataConfig):
        for source in conf.train:
            if source.weight <= 0:
                faults.append(f"train source {source.name!r}: weight {source.weight} must be above 0; drop the row to leave the list out")
            faults += [f"train source {source.name!r}: share {s} of task {t!r} must be above 0" for t, s in source.tasks.items() if s <= 0]
        warmth = conf.mixture.temperature
        if not warmth or any(t <= 0 for t in warmth):
            faults.append(f"mixture.temperature {warmth}: needs at least one number, all above 0; 1 leaves the weights as they are")
        double = {s.name for s in conf.train if [x.name for x in conf.train].count(s.name) > 1}
        faults += [f"train source {name!r}: the name stands twice" for name in sorted(double)]
    return faults


def _check_unfreeze(conf: TrainConfig) -> list[str]:
    """Return what is wrong with parts that begin to train later."""
    faults = []
    late = {pattern: part.unfreeze for pattern, part in conf.train_parts.items() if part.unfreeze}
    for pattern, share in late.items():
        if not 0 < share < 1:
            faults.append(f"train_parts {pattern!r}: unfreeze {share} must be a share of the steps, 0 or more and below 1")
    if late and conf.max_steps is None and conf.max_epochs is None:
        faults.append("train_parts: unfreeze is a share of a run of known length; give max_steps or max_epochs")
    if late and conf.optim.name == "muon":
        faults.append("train_parts: unfreeze goes with optim.name adamw; muon shares matrices out by their gradients")
    return faults


def _check_template(conf: TrainConfig) -> list[str]:
    """Return what is wrong with the settings of a chat."""
    faults, gate = [], conf.repeat_gate
    if conf.template == "chat" and conf.model.kind == "whisper":
        faults.append("template chat: kind whisper has no LLM to chat with; leave it out")
    if conf.system is not None and conf.template != "chat" and not (conf.template is None and conf.model.init_from):
        faults.append("system: only template chat has a system message; set template: chat")
    if gate.utterances < 0 or gate.max_wer < 0:
        faults.append(
            f"repeat_gate: utterances {gate.utterances} and max_wer {gate.max_wer} must be 0 or more"
        )
    return faults


def changes_of(augment: AugmentConfig) -> list[str]:
    """Name the settings that change training audio or its features."""
    found = {
        "speeds": any(speed != 1.0 for speed in augment.speeds),
        "noise_prob": augment.noise_prob > 0,
        "reverb_prob": augment.reverb_prob > 0,
        "effects": bool(augment.effects),
        "gain_db": any(level != 0 for level in augment.gain_db),
        "spec_augment": augment.spec_augment is not None,
    }
    return [name for name, changes in found.items() if changes]


def _check_cache(conf: TrainConfig) -> list[str]:
    """Return what is wrong with ``features: encoded``; what depends on the model is checked there."""
    faults, variants, changes = [], conf.cache.variants, changes_of(conf.augment)
    if variants < 1:
        faults.append(f"cache.variants {variants}: must be 1 or more")
    elif variants == 1 and changes:
        names = ", ".join(f"augment.{name}" for name in changes)
        faults.append(
            f"features: encoded computes states once, but {names} would change them in every epoch; "
            "drop it, or let cache.variants: n keep n augmented versions of each utterance"
        )
    elif variants > 1 and not changes:
        faults.append(
            f"cache.variants {variants}: augment changes nothing, so all would be alike; set it to 1"
        )
    if conf.cache.after is not None and conf.cache.after < 0:
        faults.append(f"cache.after {conf.cache.after}: must be 0 or more layers")
    return faults


def _check_losses(model: ModelConfig) -> list[str]:
    """Return what is wrong with the losses; their own keys are checked where they are made (models/objective.py)."""
    faults = []
    if model.ce_weight < 0:
        faults.append(f"model.ce_weight {model.ce_weight}: must be 0 or more")
    if model.ce_weight == 0 and not model.losses:
        faults.append("model.ce_weight 0: nothing is left to train on; name a loss in model.losses")
    names = [loss.get("name") for loss in model.losses]
    for number, loss in enumerate(model.losses):
        weight = loss.get("weight")
        if not isinstance(loss.get("name"), str):
            faults.append(f"model.losses[{number}]: needs a name, a file in models/losses")
        if not isinstance(weight, (int, float)) or isinstance(weight, bool) or weight <= 0:
            faults.append(f"model.losses[{number}].weight {weight!r}: must be a number above 0; drop the entry to leave it out")
        if names.index(loss.get("name")) < number:
            faults.append(f"model.losses[{number}]: {loss.get('name')!r} stands twice")
    return faults


def save(conf: Any, path: str | Path) -> None:
    """Write the final form of a configuration, defaults included."""
    tree = plain(conf)
    Path(path).write_text(yaml.safe_dump(tree, allow_unicode=True, sort_keys=False), encoding="utf-8")


def plain(conf: Any) -> dict[str, Any]:
    """A configuration as tables, lists and values, as yaml holds them."""
    return _plain(dataclasses.asdict(conf))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value
