"""Say what can be configured: every key of a yaml, with its type, its default and a sentence.

The sentence says what the value is and what it counts. Nothing outside these tables configures a
run. Rules between keys are in rules.py; yaml_files.py reads files into these tables.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

# what the paper gives LoRA: all matrices of a layer but up_proj
LORA_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj"]
REPEAT_PROMPT = "Repeat the following text word for word:"
DEFAULT_TARGET_TOKENS = 400  # longest target of a task, where a table says nothing about it


def _default_target_limits() -> dict[str, int]:
    return {
        "default": DEFAULT_TARGET_TOKENS,
        "srwt": 2400,
    }


@dataclass
class LoraConfig:
    """Low-rank adapters of the LLM, by peft."""

    r: int = 8  # rank
    alpha: float = 32.0  # scale is alpha / r
    dropout: float = 0.0
    targets: list[str] = field(default_factory=LORA_TARGETS.copy)  # module names


@dataclass
class EncoderConfig:
    """The speech encoder of kind osum, where it is not a Whisper's."""

    name: str = "whisper"  # file name in models/encoder
    source: str | None = None  # folder or hub name


@dataclass
class ModelConfig:
    """The model: its parts, and the folders or hub names that they come from."""

    # whisper: phase 1, encoder and decoder without the LLM
    kind: Literal["osum", "whisper"] = "osum"
    # folder or hub name of a Whisper model; its encoder is used (kind whisper: all of it)
    whisper: str | None = None
    encoder: EncoderConfig | None = None  # another encoder, in the place of whisper
    llm: str | None = None  # folder or hub name of a causal LLM with its tokenizer
    # settings of the encoder: pad_s, silence up to so many seconds (default 0)
    encoder_conf: dict[str, Any] = field(default_factory=dict)
    adapter: str = "conv_transformer"  # file name in models/adapter
    adapter_conf: dict[str, Any] = field(default_factory=dict)  # arguments of the adapter
    # part → checkpoint folder whose weights it takes over, e.g. encoder: exp/phase1/final
    init_parts: dict[str, str] = field(default_factory=dict)
    # a finished model's folder, weights only; replaces whisper, llm and adapter
    init_from: str | None = None
    lora: LoraConfig | None = None  # adds adapters to the LLM
    # seconds between times that stand in the speech of tasks with word times; None: as the model
    # has it that it goes on from, a new one none
    time_marks: float | None = None
    # nf4: frozen linear layers of the LLM have weights of 4 bits while they train LoRA or an
    # adapter (QLoRA); needs requirements/quantization.txt
    quantization: Literal["none", "nf4"] = "none"
    # file name in models/adapter_init; None: the adapter's own initial weights
    adapter_init: str | None = None
    # weight of the answers' cross-entropy; at 0 the LLM (kind whisper: the decoder) does not run
    ce_weight: float = 1.0
    # further losses: {name: file in models/losses, weight: above 0, …its own}
    losses: list[dict[str, Any]] = field(default_factory=list)
    # targets encoded field by field, or as one string (converted checkpoints)
    target_tokenization: Literal["by_field", "whole"] = "by_field"

    @property
    def encoder_source(self) -> str | None:
        """Folder or hub name of the encoder, whichever key names it."""
        if self.encoder:
            return self.encoder.source
        return self.whisper


@dataclass
class PartConfig:
    """Training settings of the parameters that match one pattern."""

    lr: float | None = None  # peak learning rate; None: optim.lr
    weight_decay: float | None = None  # None: optim.weight_decay
    # share of the run's steps after which the part begins to train; 0: at once
    unfreeze: float = 0.0


@dataclass
class SpecAugmentConfig:
    """Masks on the log-mel features (Park et al., 2019, arXiv 1904.08779).

    Substitutions are WeNet's ``spec_sub``.
    """

    time_masks: int = 2  # masks per utterance
    max_time: int = 50  # longest mask, frames; never above a fifth of the utterance
    mel_masks: int = 2  # masks per utterance
    max_mels: int = 10  # widest mask, mel bins
    substitutions: int = 0  # stretches replaced by an earlier one
    max_substitution: int = 30  # longest stretch, frames


@dataclass
class AugmentConfig:
    """Changes to training audio, drawn by (seed, epoch, key)."""

    # speed factors, drawn evenly; word times scale along
    speeds: list[float] = field(default_factory=lambda: [1.0])
    noise: str | None = None  # list of noise recordings, a path per line
    noise_prob: float = 0.0  # share of utterances that get noise
    noise_snr_db: tuple[float, float] = (5.0, 25.0)  # range of the signal-to-noise ratio, dB
    reverb: str | None = None  # list of room impulse responses, a path per line
    reverb_prob: float = 0.0  # share of utterances that get reverberation
    # further effects in order: {name: file in dataset/effects, prob: share, …its own}
    effects: list[dict[str, Any]] = field(default_factory=list)
    gain_db: tuple[float, float] = (0.0, 0.0)  # range of the level change, dB
    spec_augment: SpecAugmentConfig | None = None  # None: no masks


@dataclass
class ContextConfig:
    """Hotwords and the text before in prompts of training, drawn by (seed, epoch, key)
    (dataset/context.py)."""

    share: float = 0.5  # share of samples whose prompt has hotwords
    words: tuple[int, int] = (1, 3)  # fewest and most of them that are spoken
    distractors: tuple[int, int] = (0, 10)  # fewest and most of them that are not
    # share of those samples in which none of them is spoken
    distractors_only: float = 0.2
    # share of samples whose prompt has the text before, of those whose ``previous`` is known
    previous: float = 0.5


@dataclass
class CacheConfig:
    """States of the frozen lower part of the encoder, kept on disk with ``features: encoded``."""

    after: int | None = None  # layers of the encoder below the states; None: all of them
    dir: str = "exp/states"  # folder of all such states; many runs may share it
    dtype: Literal["float16", "float32"] = "float16"  # of the states on disk
    # augmented versions of each training utterance: epoch e trains on version e mod so many
    variants: int = 1


def _plain_name(task: str) -> str:
    """A task's name or tags without spaces, in lower case."""
    joined = task.replace(" ", "")
    return joined.lower()


@dataclass
class FilterConfig:
    """Limits of utterances; those beyond them are dropped and counted by reason."""

    min_s: float = 0.1  # shortest audio, s
    max_s: float = 30.0  # longest audio, s
    # longest target, tokens: a number for all tasks, or a table {task: number} whose ``default`` is
    # for those it does not name
    max_target_tokens: int | dict[str, int] = field(default_factory=_default_target_limits)

    def target_limit(self, name: str, tags: str) -> int:
        """Look up the longest target of a task, tokens, by its name or its tags, in either case."""
        if isinstance(self.max_target_tokens, int):
            return self.max_target_tokens
        table = {}
        for key, limit in self.max_target_tokens.items():
            table[_plain_name(key)] = limit
        for wanted in (name, tags, "default"):
            plain = _plain_name(wanted)
            if plain in table:
                return table[plain]
        return DEFAULT_TARGET_TOKENS


@dataclass
class BatchConfig:
    """Budgets of one micro-batch on one process."""

    max_frames: int = 12000  # utterances × longest, in 10 ms frames: what the encoder computes
    # prompt + speech + answer tokens of all utterances: what the LLM computes
    max_tokens: int = 8000
    max_utterances: int = 512  # utterances
    # frames an utterance counts at least; at least those of model.encoder_conf.pad_s, which
    # training puts here
    min_frames: int = 0
    # shards of a source shuffled together, fewer where many sources share 32 open files; lists
    # count as shards of 1,000 utterances
    window: int = 8


@dataclass
class StoreConfig:
    """Reading from object stores, from programs that print shards, and from network drives."""

    tries: int = 10  # of each read, before its utterances are left out
    wait_s: float = 0.1  # longest wait before the second try, s; it doubles with each, up to 20 s
    timeout_s: float = 30.0  # longest wait for an answer, and for its next bytes, s
    # requests that a data process has under way at a time, each on a connection that is kept
    connections: int = 4
    # share of the last 1,000 utterances that may be lost to such faults; the run stops above it
    max_faults: float = 0.05
    # outputs of programs without {first}, and small shards of servers without ranges, that are
    # kept in TMPDIR for all processes of a node, GB
    spool_gb: float = 32.0


@dataclass
class SourceConfig:
    """A list in the training mixture."""

    name: str
    list: str  # data.list of shards, or a raw list (JSON lines)
    weight: float = 1.0  # expected passes over the list per epoch, any positive real
    # task → share of an utterance's draws; beats its own task
    tasks: dict[str, float] = field(default_factory=dict)
    # keep only utterances whose columns have these values, e.g. lang: zh
    where: dict[str, str] = field(default_factory=dict)
    # an empty transcript says that nobody speaks, and is learned; else it counts as missing
    without_speech: bool = False


@dataclass
class MixtureConfig:
    """The shares of the sources in an epoch (dataset/temperature.py)."""

    # T of each epoch, the last one of all that follow: shares go by the size of a source to the
    # power of 1/T
    temperature: list[float] = field(default_factory=lambda: [1.0])


@dataclass
class DataConfig:
    """The lists to train on and to test on."""

    train: list[SourceConfig] = field(default_factory=list)
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    dev: dict[str, str] = field(default_factory=dict)  # task → list


@dataclass
class OptimConfig:
    """The optimizer and its learning-rate schedule, counted in optimizer steps."""

    # muon: Muon for the matrices inside layer stacks, AdamW for everything else
    name: Literal["adamw", "muon"] = "adamw"
    lr: float = 1e-4  # peak learning rate of AdamW
    # peak learning rate of Muon; a part with its own lr takes it in the same proportion to optim.lr
    muon_lr: float = 4e-3
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-6
    weight_decay: float = 0.01  # not on norms, biases and embeddings' gains
    warmup_steps: int = 1000
    schedule: Literal["inverse_sqrt", "cosine", "linear", "constant"] = "inverse_sqrt"
    min_lr_ratio: float = 0.01  # floor of cosine and linear, share of the peak
    clip: float = 5.0  # largest gradient norm
    accumulation: int = 1  # micro-batches per step and process


@dataclass
class RepeatGateConfig:
    """The check of the LLM before it is trained in a chat (train/repeat_gate.py)."""

    utterances: int = 32  # how many transcripts it is asked to repeat; 0: there is no gate
    max_wer: float = 5.0  # highest word error rate of what it repeats, %
    prompt: str = REPEAT_PROMPT  # how it is asked


@dataclass
class TrainConfig:
    """One phase of training."""

    seed: int = 777
    # packages that bring plug-ins of their own, e.g. wenet_osum.small
    plugins: list[str] = field(default_factory=list)
    data: str | None = None  # yaml with the data tables (DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    # name pattern (glob) → how it trains; what no pattern names is frozen
    train_parts: dict[str, PartConfig] = field(default_factory=dict)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    context: ContextConfig | None = None  # None: prompts have no context
    filter: FilterConfig = field(default_factory=FilterConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    # field name → weight of its tokens, default 1
    loss_weight: dict[str, float] = field(default_factory=dict)
    # field name → the user's own label set
    labels: dict[str, list[str]] = field(default_factory=dict)
    # yaml {task tag: {zh: […], en: […]}} that replaces the built-in prompts
    prompts: str | None = None
    lowercase: bool = False  # lower-case transcripts (the published checkpoints want it)
    # plain: prompt, speech, answer, for base LLMs and converted checkpoints; chat: the LLM's own
    # chat template, for Instruct LLMs; None: that of model.init_from, else plain
    template: Literal["plain", "chat"] | None = None
    # system message of a chat; None: that of model.init_from, else the chat template's own
    system: str | None = None
    repeat_gate: RepeatGateConfig = field(default_factory=RepeatGateConfig)  # with template chat
    max_steps: int | None = None  # optimizer steps
    max_epochs: int | None = None  # passes over the mixture
    max_hours: float | None = None  # wall clock over all runs of this experiment, h
    patience: int | None = None  # evaluations without a better dev loss before stopping
    eval_every: int = 1000  # steps between dev evaluations and checkpoints
    log_every: int = 50  # steps between log lines
    # write the utterances of every step to exp_dir/keys, a file per process: what was trained on,
    # and in which order
    log_keys: bool = False
    keep: int = 5  # newest checkpoints kept; the best one is always kept
    engine: Literal["ddp", "fsdp"] = "ddp"
    dtype: Literal["float32", "bfloat16"] = "float32"
    checkpointing: bool = False  # recompute activations in the backward pass
    # compile the layers of encoder and LLM (torch.compile); the first steps wait for the compiler
    compile: bool = False
    rehearsal: bool = True  # run the largest micro-batches before step 1
    # where training's log-mel features are made: by the data processes, or beside the model;
    # encoded: not at all, states of the frozen encoder are computed once and read from disk
    features: Literal["cpu", "device", "encoded"] = "cpu"
    cache: CacheConfig = field(default_factory=CacheConfig)  # of features: encoded
    workers: int = 0  # data processes per training process
    prefetch: int = 4  # micro-batches a worker holds ready
    threads: int = 1  # torch threads per process, CPU
    # seconds that a process waits for another within a step, before it takes that one for lost
    step_timeout_s: float = 600.0
