"""Hold a configuration against the rules between its keys; answer each broken one in a sentence.

Types and single values are matters of typed.py; what depends on the model is checked where it is
built.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from wenet_osum.config.tables import (
    AugmentConfig,
    ContextConfig,
    DataConfig,
    FilterConfig,
    ModelConfig,
    SourceConfig,
    StoreConfig,
    TrainConfig,
)


def broken_rules(conf: Any) -> list[str]:
    """Return a sentence for each rule that a training phase or a mixture breaks."""
    if isinstance(conf, TrainConfig):
        return _of_training(conf)
    if isinstance(conf, DataConfig):
        return _of_mixture(conf)
    return []


def _of_training(conf: TrainConfig) -> list[str]:
    faults = [
        *_of_model_sources(conf.model),
        *_of_template(conf),
        *_of_losses(conf.model),
        *_of_run(conf),
        *_of_unfreezing(conf),
        *_of_augmentation(conf.augment),
        *_of_context(conf.context),
        *_of_target_limits(conf.filter),
        *_of_store(conf.store),
    ]
    if conf.features == "encoded":
        faults += _of_cache(conf)
    return faults


def _of_model_sources(model: ModelConfig) -> list[str]:
    """Check that each part of the model comes from one place."""
    faults = []
    sources = [name for name in ("whisper", "encoder", "llm") if getattr(model, name)]
    if model.init_from and sources:
        faults.append(
            f"model.init_from and model.{sources[0]}: give one of them; init_from brings all parts"
        )
    if not model.init_from and not model.encoder_source:
        faults.append(
            "model.whisper: a folder or hub name is needed (or model.encoder with its source, "
            "or model.init_from)"
        )
    if model.encoder and model.whisper:
        faults.append("model.whisper and model.encoder: give one of them; both name the encoder")
    if model.encoder and model.kind == "whisper":
        faults.append("model.encoder: kind whisper takes its encoder from model.whisper")
    if model.kind == "osum" and not model.init_from and not model.llm:
        faults.append(
            "model.llm: a folder or hub name is needed for kind osum (or model.init_from)"
        )
    if model.kind == "whisper" and (model.llm or model.lora or model.time_marks):
        faults.append("model.llm, model.lora and model.time_marks: kind whisper has no LLM")
    if model.time_marks is not None and model.time_marks <= 0:
        faults.append(f"model.time_marks {model.time_marks}: seconds above 0, or leave it out")
    return faults


def _of_template(conf: TrainConfig) -> list[str]:
    """Check the settings of a chat."""
    faults, gate = [], conf.repeat_gate
    if conf.template == "chat" and conf.model.kind == "whisper":
        faults.append("template chat: kind whisper has no LLM to chat with; leave it out")
    may_inherit_chat = conf.template is None and conf.model.init_from
    if conf.system is not None and conf.template != "chat" and not may_inherit_chat:
        faults.append("system: only template chat has a system message; set template: chat")
    if gate.utterances < 0 or gate.max_wer < 0:
        faults.append(
            f"repeat_gate: utterances {gate.utterances} and max_wer {gate.max_wer} "
            "must be 0 or more"
        )
    return faults


def _of_losses(model: ModelConfig) -> list[str]:
    """Check the weights of losses; their own keys are checked in models/objective.py."""
    faults = []
    if model.ce_weight < 0:
        faults.append(f"model.ce_weight {model.ce_weight}: must be 0 or more")
    if model.ce_weight == 0 and not model.losses:
        faults.append("model.ce_weight 0: nothing is left to train on; name a loss in model.losses")
    seen = []
    for number, loss in enumerate(model.losses):
        name, weight = loss.get("name"), loss.get("weight")
        key = f"model.losses[{number}]"
        if not isinstance(name, str):
            faults.append(f"{key}: needs a name, a file in models/losses")
        is_number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
        if not is_number or weight <= 0:
            faults.append(
                f"{key}.weight {weight!r}: must be a number above 0; drop the entry to leave it out"
            )
        if name in seen:
            faults.append(f"{key}: {name!r} stands twice")
        seen.append(name)
    return faults


def _of_run(conf: TrainConfig) -> list[str]:
    """Check that something trains, that the run ends, and that its optimizer can work."""
    faults = []
    if not conf.train_parts:
        faults.append('train_parts: name what trains, e.g. {"adapter.*": {}}')
    if conf.max_steps is None and conf.max_epochs is None and conf.max_hours is None:
        faults.append("max_steps, max_epochs or max_hours: one is needed to end the run")
    faults += _of_quantization(conf)
    faults += _of_numbers(conf)
    if conf.optim.name == "muon" and conf.engine == "fsdp":
        faults.append(
            "optim.name muon: needs whole matrices, which engine fsdp cuts; "
            "use engine ddp or optim.name adamw"
        )
    return faults


def _of_numbers(conf: TrainConfig) -> list[str]:
    """Check that counts are 1 or more and sizes above 0, where there are any."""
    counts = {
        "max_steps": conf.max_steps,
        "max_epochs": conf.max_epochs,
        "patience": conf.patience,
        "eval_every": conf.eval_every,
        "log_every": conf.log_every,
        "keep": conf.keep,
        "threads": conf.threads,
        "prefetch": conf.prefetch,
        "optim.accumulation": conf.optim.accumulation,
        "batch.window": conf.batch.window,
    }
    sizes = {
        "max_hours": conf.max_hours,
        "step_timeout_s": conf.step_timeout_s,
        "optim.clip": conf.optim.clip,
    }
    faults = []
    for name, value in counts.items():
        if value is not None and value < 1:
            faults.append(f"{name} {value}: must be 1 or more")
    for name, value in sizes.items():
        if value is not None and not value > 0:
            faults.append(f"{name} {value:g}: must be above 0")
    return faults


def _of_quantization(conf: TrainConfig) -> list[str]:
    """Check that there are weights to quantize, and that nothing cuts them."""
    if conf.model.quantization == "none":
        return []
    faults = []
    if conf.model.kind == "whisper":
        faults.append("model.quantization: kind whisper has no LLM; leave it out")
    if conf.engine == "fsdp":
        faults.append(
            "model.quantization: engine fsdp cuts weights by rows, and those of 4 bits have none; "
            "use engine ddp"
        )
    return faults


def _of_augmentation(augment: AugmentConfig) -> list[str]:
    faults = []
    for name in ("noise", "reverb"):
        share = getattr(augment, f"{name}_prob")
        if share > 0 and not getattr(augment, name):
            faults.append(
                f"augment.{name}_prob {share}: needs augment.{name}, a list of recordings"
            )
    if not augment.speeds or min(augment.speeds) <= 0:
        faults.append(f"augment.speeds {augment.speeds}: needs at least one factor, all above 0")
    return faults


def _of_context(context: ContextConfig | None) -> list[str]:
    """Check the shares and numbers of hotwords."""
    if context is None:
        return []
    faults = []
    for name in ("share", "distractors_only", "previous"):
        share = getattr(context, name)
        if not 0 <= share <= 1:
            faults.append(f"context.{name} {share}: must be a share, 0 to 1")
    for name in ("words", "distractors"):
        fewest, most = getattr(context, name)
        if not 0 <= fewest <= most:
            faults.append(
                f"context.{name} {[fewest, most]}: must be the fewest and the most, 0 or more"
            )
    if context.distractors_only > 0 and context.distractors[1] < 1:
        faults.append("context.distractors_only: needs context.distractors of at least one word")
    return faults


def _of_target_limits(conf: FilterConfig) -> list[str]:
    faults, key = [], "filter.max_target_tokens"
    limits = conf.max_target_tokens
    table = limits if isinstance(limits, dict) else {"": limits}
    for task, limit in table.items():
        if limit < 1:
            name = f"{key}.{task}" if task else key
            faults.append(
                f"{name} {limit}: must be 1 or more; a task is left out by the mixture's tasks"
            )
    return faults


def _of_store(conf: StoreConfig) -> list[str]:
    faults = []
    for name in ("tries", "connections"):
        value = getattr(conf, name)
        if value < 1:
            faults.append(f"store.{name} {value}: must be 1 or more")
    for name in ("wait_s", "timeout_s", "spool_gb"):
        value = getattr(conf, name)
        if value <= 0:
            faults.append(f"store.{name} {value}: must be above 0")
    if not 0 <= conf.max_faults <= 1:
        faults.append(
            f"store.max_faults {conf.max_faults}: must be a share, 0 to 1; 1 never stops the run"
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


def _of_cache(conf: TrainConfig) -> list[str]:
    """Check ``features: encoded``."""
    faults, variants, changes = [], conf.cache.variants, changes_of(conf.augment)
    if variants < 1:
        faults.append(f"cache.variants {variants}: must be 1 or more")
    elif variants == 1 and changes:
        names = ", ".join(f"augment.{name}" for name in changes)
        faults.append(
            f"features: encoded computes states once, but {names} would change them in every "
            "epoch; drop it, or let cache.variants: n keep n augmented versions of each utterance"
        )
    elif variants > 1 and not changes:
        faults.append(
            f"cache.variants {variants}: augment changes nothing, so all would be alike; "
            "set it to 1"
        )
    if conf.cache.after is not None and conf.cache.after < 0:
        faults.append(f"cache.after {conf.cache.after}: must be 0 or more layers")
    return faults


def _of_unfreezing(conf: TrainConfig) -> list[str]:
    """Check parts that begin to train later."""
    faults = []
    late = {}
    for pattern, part in conf.train_parts.items():
        if part.unfreeze:
            late[pattern] = part.unfreeze
    for pattern, share in late.items():
        if not 0 < share < 1:
            faults.append(
                f"train_parts {pattern!r}: unfreeze {share} must be a share of the steps, "
                "0 or more and below 1"
            )
    if late and conf.max_steps is None and conf.max_epochs is None:
        faults.append(
            "train_parts: unfreeze is a share of a run of known length; "
            "give max_steps or max_epochs"
        )
    if late and conf.optim.name == "muon":
        faults.append(
            "train_parts: unfreeze goes with optim.name adamw; "
            "muon shares matrices out by their gradients"
        )
    return faults


def _of_mixture(conf: DataConfig) -> list[str]:
    faults = []
    temperature = conf.mixture.temperature
    if not temperature or any(t <= 0 for t in temperature):
        faults.append(
            f"mixture.temperature {temperature}: needs at least one number, all above 0; "
            "1 leaves the weights as they are"
        )
    for source in conf.train:
        faults += _of_source(source)
    counts = Counter(source.name for source in conf.train)
    for name in sorted(counts):
        if counts[name] > 1:
            faults.append(f"train source {name!r}: the name stands twice")
    return faults


def _of_source(source: SourceConfig) -> list[str]:
    faults = []
    if source.weight <= 0:
        faults.append(
            f"train source {source.name!r}: weight {source.weight} must be above 0; "
            "drop the row to leave the list out"
        )
    for task, share in source.tasks.items():
        if share <= 0:
            faults.append(
                f"train source {source.name!r}: share {share} of task {task!r} must be above 0"
            )
    return faults
