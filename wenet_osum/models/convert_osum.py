"""Published OSUM checkpoints (arXiv 2501.13306; ``infer.pt``, a state dict) as model folders of this toolkit.

The LLM's sizes come from its own configuration, all others from the tensors. LoRA adapters stay apart, in ``lora`` as peft writes them.
Texts are laid out as there: prompts of the user's yaml, targets in lower case and encoded as whole strings.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from transformers import AutoConfig, GenerationConfig, PreTrainedConfig, WhisperConfig

from wenet_osum import tasks
from wenet_osum.models import build, convert, lora
from wenet_osum.models.sinusoids import positions
from wenet_osum.models.convert import Piece
from wenet_osum.models.convert_whisper import heads_of, piece_of
from wenet_osum.models.osum import OsumConfig, OsumModel, greedy
from wenet_osum.text.template import Template
from wenet_osum.text.tokenizer import load_tokenizer

ADAPTER = """
convolutions.0           down_sample_2.conv.1
convolutions.1           down_sample_2.conv.4
convolutions.2           down_sample_2.conv.7
input                    speech_transformer.embed.out.0
input_norm               speech_transformer.embed.out.1
norm                     speech_transformer.after_norm
output                   speech_llama_proj
layers.#.query           speech_transformer.encoders.#.self_attn.linear_q
layers.#.key             speech_transformer.encoders.#.self_attn.linear_k
layers.#.value           speech_transformer.encoders.#.self_attn.linear_v
layers.#.out             speech_transformer.encoders.#.self_attn.linear_out
layers.#.ffn_in          speech_transformer.encoders.#.feed_forward.w_1
layers.#.ffn_out         speech_transformer.encoders.#.feed_forward.w_2
layers.#.attention_norm  speech_transformer.encoders.#.norm1
layers.#.ffn_norm        speech_transformer.encoders.#.norm2
"""  # ours · published; # is a layer's number
MODULES = dict(line.split() for line in ADAPTER.strip().splitlines())
BOUNDARY = "speech_token_emded.weight"  # its last two rows are speech start and speech end; the others belong to speech output
ADAPTER_POSITIONS = "speech_transformer.embed.pos_enc.pe"  # sinusoids, which the adapter computes
UNUSED = {"ln_speech.weight", "ln_speech.bias", "speaker_head.weight", "speaker_head.bias"}
ALIASES = {"embed_tokens.weight": "model.embed_tokens.weight", "lm_head.weight": "lm_head.weight"}  # repeated outside the LLM
LLM, LLM_WITH_LORA = "llama_model.", "llama_model.base_model.model."
LORA_KEY = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])\.default\.weight")
LORA_ALPHA, LORA_DROPOUT = 32.0, 0.1  # as published; the file does not hold them
ADAPTER_HEADS = 4  # as published
POSITION_TOLERANCE = 0.01  # what bfloat16 may lose of a sine


def from_osum(
    path: str | Path,
    llm: str,
    out: str | Path,
    prompts: str | Path | None = None,
    heads: int | None = None,
    adapter_heads: int = ADAPTER_HEADS,
    lora_alpha: float = LORA_ALPHA,
    shard_bytes: int = convert.SHARD_BYTES,
) -> list[str]:
    """Write the model folder ``out`` from a published checkpoint; returns lines that say what was done.

    ``llm``: folder or hub name of the LLM it was trained on, of which only configuration and tokenizer are read. ``prompts``: the
    checkpoint's prompt_config.yaml. ``heads``: of the encoder. Raises ValueError for a file with other keys or sizes, or bad prompts.
    """
    table, left_out = read_prompts(prompts)
    language = _llm_config(llm)
    template = Template(load_tokenizer(llm), prompts=table, target_tokenization="whole", lowercase=True)
    config, pieces, adapters = _match(path, llm, language, template, heads, adapter_heads)
    with convert.new_folder(Path(out)) as folder:

        def read() -> dict[str, Tensor]:
            return convert.state_of(convert.open_pt(path), path)

        files = convert.write_model(folder, read, pieces, shard_bytes)
        if adapters:
            _write_lora(folder / lora.FOLDER, read, adapters, llm, lora_alpha)
        config.save_pretrained(folder)
        _generation(llm, language, template.end_id).save_pretrained(folder)
        template.save(folder)
    return _said(out, pieces, adapters, len(files), table, left_out)


def _said(out: str | Path, pieces: dict[str, Piece], adapters: dict[str, Piece], files: int, table: dict[str, Any], left_out: list[str]) -> list[str]:
    said = [f"{out}: {len(pieces)} tensors in {files} file(s), LoRA: {f'{len(adapters)} tensors' if adapters else 'none'}"]
    said.append(f"prompts of {len(table)} tasks" if table else "no --prompts: the toolkit's own will be asked, which it was not trained with")
    return said + ([f"prompts left out, no such task here: {', '.join(left_out)}"] if left_out else [])


def read_prompts(path: str | Path | None) -> tuple[dict[str, Any], list[str]]:
    """The prompts of a yaml {tags: [sentence, …]} by tags, and the entries whose tags are no task. Raises ValueError when it cannot be read."""
    if path is None:
        return {}, []
    try:
        table = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"--prompts {path} cannot be read: {' '.join(str(error).split())}; give a yaml with {{task tags: [sentence, …]}}") from None
    if not isinstance(table, dict):
        raise ValueError(f"--prompts {path} must be a table {{task tags: [sentence, …]}}, got {type(table).__name__}")
    known = {name: rows for name, rows in table.items() if _is_task(name)}
    left_out = [str(name) for name in table if name not in known]
    if not known:
        names = ", ".join(left_out) or "its 0 entries"
        raise ValueError(f"--prompts {path}: none of {names} is a task, e.g. <TRANSCRIBE> <EMOTION>; give another yaml")
    return known, left_out


def _is_task(name: Any) -> bool:
    try:
        tasks.parse(str(name))
    except ValueError:
        return False
    return True


def _llm_config(llm: str) -> PreTrainedConfig:
    try:
        return AutoConfig.from_pretrained(str(llm))
    except (OSError, ValueError) as error:
        raise ValueError(f"--llm {llm}: no configuration of a language model there: {error}; give a folder of transformers, or a hub name") from None


def _match(
    path: str | Path, llm: str, language: PreTrainedConfig, template: Template, heads: int | None, adapter_heads: int
) -> tuple[OsumConfig, dict[str, Piece], dict[str, Piece]]:
    """The configuration, where each tensor of the model comes from, and each of the LoRA adapters. The file is closed again on return."""
    state = convert.state_of(convert.open_pt(path), path)
    prefix = LLM_WITH_LORA if any(key.startswith(LLM_WITH_LORA) for key in state) else LLM
    config = _config(state, language, heads, adapter_heads, path)
    _check_llm(state, prefix, language, path, llm)
    with torch.device("meta"):
        model = OsumModel(config)
    build.check_vocabulary(model, template.tokenizer)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    pieces = {name: _piece(name, prefix, state) for name in shapes}
    adapters, adapter_shapes = _adapters(state, prefix, shapes, path)
    unused = _unused(state, prefix, path)
    rule = f"Give the infer.pt of an OSUM and with --llm the LLM it was trained on (now {llm})"
    convert.check(state, pieces | adapters, shapes | adapter_shapes, unused, path, rule)
    if language.tie_word_embeddings:
        convert.same(state, pieces.pop("llm.lm_head.weight").key, pieces["llm.model.embed_tokens.weight"].key, path)
    return config, pieces, adapters


def _config(state: dict[str, Tensor], language: PreTrainedConfig, heads: int | None, adapter_heads: int, path: str | Path) -> OsumConfig:
    """Sizes of encoder and adapter from the tensors."""

    def at(key: str, axis: int) -> int:
        return convert.size(state, key, axis, path)

    width = at("encoder.embed.conv.0.weight", 0)
    encoder = WhisperConfig(
        num_mel_bins=at("encoder.embed.conv.0.weight", 1),
        d_model=width,
        encoder_layers=convert.count(state, "encoder.encoders."),
        encoder_attention_heads=heads_of(width, heads),
        encoder_ffn_dim=at("encoder.encoders.0.feed_forward.w_1.weight", 0),
        max_source_positions=at("encoder.embed.pos_enc.pe", 1),
    )
    adapter = {
        "width": at("down_sample_2.conv.1.weight", 0),
        "layers": convert.count(state, "speech_transformer.encoders."),
        "heads": adapter_heads,
        "ffn": at("speech_transformer.encoders.0.feed_forward.w_1.weight", 0),
    }
    parts = {"encoder": encoder.to_dict(), "llm": language.to_dict()}  # as tables: OsumConfig takes places on this machine out of them
    dtype = state["encoder.embed.conv.0.weight"].dtype
    return OsumConfig(**parts, adapter="conv_transformer", adapter_conf=adapter, dtype=dtype, architectures=["OsumModel"])


def _check_llm(state: dict[str, Tensor], prefix: str, language: PreTrainedConfig, path: str | Path, llm: str) -> None:
    """Say in one sentence that it is another LLM, before its hundreds of tensors do."""
    key = f"{prefix}model.embed_tokens.weight"
    held = tuple(convert.size(state, key, axis, path) for axis in (0, 1))
    need = (language.vocab_size, language.hidden_size)
    layers = convert.count(state, f"{prefix}model.layers.")
    if held != need or layers != language.num_hidden_layers:
        sizes = f"{held[0]} tokens, width {held[1]}, {layers} layers"
        wanted = f"{need[0]} tokens, width {need[1]}, {language.num_hidden_layers} layers"
        raise ValueError(f"{path} holds an LLM of {sizes}; --llm {llm} has {wanted}; give the LLM it was trained on")


def _piece(name: str, prefix: str, state: dict[str, Tensor]) -> Piece:
    """Where a parameter of OsumModel lies in the file."""
    part, _, rest = name.partition(".")
    if part == "encoder":
        return piece_of(name, "wenet")
    if part == "speech_boundary":
        return Piece(BOUNDARY, _last_two)
    if part == "adapter":
        number = re.match(r"layers\.(\d+)\.", rest)
        module, _, parameter = re.sub(r"^layers\.\d+\.", "layers.#.", rest).rpartition(".")
        return Piece(f"{MODULES[module]}.{parameter}".replace("#", number[1] if number else ""))
    module, _, parameter = rest.rpartition(".")
    adapted = f"{prefix}{module}.base_layer.{parameter}"
    return Piece(adapted if adapted in state else f"{prefix}{rest}")


def _last_two(rows: Tensor) -> Tensor:
    return rows[-2:]


def _adapters(
    state: dict[str, Tensor], prefix: str, shapes: dict[str, tuple[int, ...]], path: str | Path
) -> tuple[dict[str, Piece], dict[str, tuple[int, ...]]]:
    """LoRA adapters by peft's names, with the shapes they need: every module of the LLM with an adapted one's last name has to have them."""
    found = {key: match for key in state if key.startswith(prefix) and (match := LORA_KEY.fullmatch(key))}
    if not found:
        return {}, {}
    targets = {match["module"].rpartition(".")[2] for match in found.values()}
    ranks = {state[key].shape[0] for key, match in found.items() if match["side"] == "A"}
    if len(ranks) != 1:
        raise ValueError(f"{path}: LoRA has ranks {sorted(ranks)}, one rank in all modules is read; merge the adapters before converting")
    rank, pieces, needed = ranks.pop(), {}, {}
    for name, shape in shapes.items():
        module = name.removesuffix(".weight").removeprefix("llm.")
        if not name.startswith("llm.") or len(shape) != 2 or module.rpartition(".")[2] not in targets:
            continue
        for side, need in (("A", (rank, shape[1])), ("B", (shape[0], rank))):
            ours = f"base_model.model.{module}.lora_{side}.weight"
            pieces[ours], needed[ours] = Piece(f"{prefix}{module}.lora_{side}.default.weight"), need
    return pieces, needed


def _unused(state: dict[str, Tensor], prefix: str, path: str | Path) -> set[str]:
    """Keys known to have no place: repetitions, which have to repeat, positions, which have to be those computed here, and unused parts."""
    for alias, original in ALIASES.items():
        convert.same(state, alias, f"{prefix}{original}", path)
    if ADAPTER_POSITIONS in state:
        stored = state[ADAPTER_POSITIONS].float().flatten(0, -2)
        if stored.shape[1] % 2 or not torch.allclose(stored, positions(*stored.shape, stored.device), rtol=0, atol=POSITION_TOLERANCE):
            raise ValueError(f"{path}: {ADAPTER_POSITIONS!r} holds other positions than the adapter's sinusoids; it is another model")
    return state.keys() & (UNUSED | ALIASES.keys() | {ADAPTER_POSITIONS})


def _generation(llm: str, language: PreTrainedConfig, end: int) -> GenerationConfig:
    """Greedy settings with the LLM's tokens, but the end of an answer as its end.

    An Instruct LLM would sample, and end at its chat's.
    """
    try:
        settings = GenerationConfig.from_pretrained(str(llm))
    except (OSError, ValueError):  # many folders have none
        settings = GenerationConfig.from_model_config(language)
    settings.eos_token_id = end
    settings.pad_token_id = end if settings.pad_token_id is None else settings.pad_token_id
    return greedy(settings)


def _write_lora(folder: Path, read: Any, adapters: dict[str, Piece], llm: str, alpha: float) -> None:
    """The adapters as peft writes them."""
    from peft import LoraConfig

    folder.mkdir()
    convert.write_file(folder / lora.WEIGHTS, read, adapters)
    rank = next(piece for name, piece in adapters.items() if name.endswith("lora_A.weight")).key
    conf = LoraConfig(
        r=read()[rank].shape[0],
        lora_alpha=alpha,
        lora_dropout=LORA_DROPOUT,
        target_modules=sorted({name.split(".")[-3] for name in adapters}),
        task_type="CAUSAL_LM",
        inference_mode=True,
        base_model_name_or_path=None if Path(llm).exists() else llm,
    )
    conf.save_pretrained(folder)
