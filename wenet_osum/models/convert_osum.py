"""Published OSUM checkpoints (arXiv 2501.13306; ``infer.pt``, a state dict) as model folders of
this toolkit.

The LLM's sizes come from its own configuration, all others from the tensors. LoRA adapters stay
apart, in ``lora`` as peft writes them. Texts are laid out as there: prompts of the user's yaml,
targets in lower case and encoded as whole strings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoConfig, GenerationConfig, PreTrainedConfig, WhisperConfig

from wenet_osum.models import build, convert, lora
from wenet_osum.models.assemble import greedy
from wenet_osum.models.convert import Piece, Read, Shapes
from wenet_osum.models.convert_prompts import about_prompts, read_prompts
from wenet_osum.models.convert_whisper import heads_of
from wenet_osum.models.osum import OsumModel
from wenet_osum.models.osum_config import OsumConfig
from wenet_osum.models.sinusoids import positions
from wenet_osum.models.whisper_names import piece_of
from wenet_osum.text.template import Template
from wenet_osum.text.tokenizer import load_tokenizer

# Ours · published; # is a layer's number.
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
"""
MODULES = dict(line.split() for line in ADAPTER.strip().splitlines())
# Its last two rows are speech start and speech end; the others belong to speech output.
BOUNDARY = "speech_token_emded.weight"
# Sinusoids, which the adapter computes.
ADAPTER_POSITIONS = "speech_transformer.embed.pos_enc.pe"
UNUSED = {"ln_speech.weight", "ln_speech.bias", "speaker_head.weight", "speaker_head.bias"}
# Repeated outside the LLM.
ALIASES = {
    "embed_tokens.weight": "model.embed_tokens.weight",
    "lm_head.weight": "lm_head.weight",
}
LLM, LLM_WITH_LORA = "llama_model.", "llama_model.base_model.model."
LORA_KEY = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])\.default\.weight")
# As published; the file does not hold them.
LORA_ALPHA, LORA_DROPOUT = 32.0, 0.1
ADAPTER_HEADS = 4
# What bfloat16 may lose of a sine.
POSITION_TOLERANCE = 0.01


@dataclass(frozen=True)
class Source:
    """A published checkpoint, open."""

    path: str | Path
    state: dict[str, Tensor]
    # What the keys of its LLM begin with.
    prefix: str

    @classmethod
    def open(cls, path: str | Path) -> Source:
        """Open a file, its tensors left on the disk."""
        state = convert.state_of(convert.open_pt(path), path)
        with_lora = any(key.startswith(LLM_WITH_LORA) for key in state)
        return cls(path, state, LLM_WITH_LORA if with_lora else LLM)

    def size(self, key: str, axis: int) -> int:
        """Read a size off a tensor. Raises ValueError when the file lacks it."""
        return convert.size(self.state, key, axis, self.path)

    def count(self, prefix: str) -> int:
        """Count the layers that are numbered behind ``prefix``."""
        return convert.count(self.state, prefix)


@dataclass(frozen=True)
class Match:
    """The model in a checkpoint, and the source of each of its tensors."""

    config: OsumConfig
    pieces: dict[str, Piece]
    # LoRA adapters, by peft's names.
    adapters: dict[str, Piece]


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
    """Write the model folder ``out`` from a published checkpoint; returns lines that say what was
    done.

    ``llm``: folder or hub name of the LLM it was trained on, of which only configuration and
    tokenizer are read. ``prompts``: the checkpoint's prompt_config.yaml. ``heads``: of the encoder.
    Raises ValueError for a file with other keys or sizes, or bad prompts.
    """
    table, left_out = read_prompts(prompts)
    language = _llm_config(llm)
    tokenizer = load_tokenizer(llm)
    template = Template(tokenizer, prompts=table, target_tokenization="whole", lowercase=True)
    # The file is closed again on return.
    match = _match(path, llm, language, template, heads, adapter_heads)

    def read() -> dict[str, Tensor]:
        return convert.state_of(convert.open_pt(path), path)

    with convert.new_folder(Path(out)) as folder:
        files = convert.write_model(folder, read, match.pieces, shard_bytes)
        if match.adapters:
            _write_lora(folder / lora.FOLDER, read, match.adapters, llm, lora_alpha)
        match.config.save_pretrained(folder)
        _generation(llm, language, template.end_id).save_pretrained(folder)
        template.save(folder)

    adapters = f"{len(match.adapters)} tensors" if match.adapters else "none"
    said = [f"{out}: {len(match.pieces)} tensors in {len(files)} file(s), LoRA: {adapters}"]
    return said + about_prompts(table, left_out)


def _llm_config(llm: str) -> PreTrainedConfig:
    try:
        return AutoConfig.from_pretrained(str(llm))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"--llm {llm}: no configuration of a language model there: {error}; "
            "give a folder of transformers, or a hub name"
        ) from None


def _match(
    path: str | Path,
    llm: str,
    language: PreTrainedConfig,
    template: Template,
    heads: int | None,
    adapter_heads: int,
) -> Match:
    """Find the configuration, and where each tensor of the model and of the LoRA adapters lies.

    Raises ValueError when anything in the file does not fit.
    """
    source = Source.open(path)
    config = _config(source, language, heads, adapter_heads)
    _check_llm(source, language, llm)
    with torch.device("meta"):
        model = OsumModel(config)
    build.check_vocabulary(model, template.tokenizer)

    shapes: Shapes = {}
    pieces: dict[str, Piece] = {}
    for name, tensor in model.state_dict().items():
        shapes[name] = tuple(tensor.shape)
        pieces[name] = _piece(name, source)
    adapters, adapter_shapes = _adapters(source, shapes)
    convert.check(
        source.state,
        pieces | adapters,
        shapes | adapter_shapes,
        _unused(source),
        path,
        f"Give the infer.pt of an OSUM and with --llm the LLM it was trained on (now {llm})",
    )
    if language.tie_word_embeddings:
        # The head is the embeddings, so it is not written.
        head = pieces.pop("llm.lm_head.weight")
        embeddings = pieces["llm.model.embed_tokens.weight"]
        convert.same(source.state, head.key, embeddings.key, path)
    return Match(config, pieces, adapters)


def _config(
    source: Source, language: PreTrainedConfig, heads: int | None, adapter_heads: int
) -> OsumConfig:
    """Read the sizes of encoder and adapter off the tensors."""
    width = source.size("encoder.embed.conv.0.weight", 0)
    encoder = WhisperConfig(
        num_mel_bins=source.size("encoder.embed.conv.0.weight", 1),
        d_model=width,
        encoder_layers=source.count("encoder.encoders."),
        encoder_attention_heads=heads_of(width, heads),
        encoder_ffn_dim=source.size("encoder.encoders.0.feed_forward.w_1.weight", 0),
        max_source_positions=source.size("encoder.embed.pos_enc.pe", 1),
    )
    adapter = {
        "width": source.size("down_sample_2.conv.1.weight", 0),
        "layers": source.count("speech_transformer.encoders."),
        "heads": adapter_heads,
        "ffn": source.size("speech_transformer.encoders.0.feed_forward.w_1.weight", 0),
    }
    return OsumConfig(
        # As tables: OsumConfig takes places on this machine out of them.
        encoder=encoder.to_dict(),
        llm=language.to_dict(),
        adapter="conv_transformer",
        adapter_conf=adapter,
        dtype=source.state["encoder.embed.conv.0.weight"].dtype,
        architectures=["OsumModel"],
    )


def _check_llm(source: Source, language: PreTrainedConfig, llm: str) -> None:
    """Say in one sentence that it is another LLM, before its hundreds of tensors do."""
    key = f"{source.prefix}model.embed_tokens.weight"
    layers = source.count(f"{source.prefix}model.layers.")
    held = (source.size(key, 0), source.size(key, 1), layers)
    need = (language.vocab_size, language.hidden_size, language.num_hidden_layers)
    if held == need:
        return
    sizes = "{} tokens, width {}, {} layers"
    raise ValueError(
        f"{source.path} holds an LLM of {sizes.format(*held)}; "
        f"--llm {llm} has {sizes.format(*need)}; give the LLM it was trained on"
    )


def _piece(name: str, source: Source) -> Piece:
    """Say where a parameter of OsumModel lies in the file."""
    part, _, rest = name.partition(".")
    if part == "encoder":
        return piece_of(name, "wenet")
    if part == "speech_boundary":
        return Piece(BOUNDARY, _last_two)
    if part == "adapter":
        return Piece(_adapter_key(rest))

    # Beneath a LoRA adapter peft has put the layer itself aside.
    module, _, parameter = rest.rpartition(".")
    adapted = f"{source.prefix}{module}.base_layer.{parameter}"
    if adapted in source.state:
        return Piece(adapted)
    return Piece(f"{source.prefix}{rest}")


def _adapter_key(name: str) -> str:
    """Return the published name of a parameter of the adapter."""
    number = re.match(r"layers\.(\d+)\.", name)
    general = re.sub(r"^layers\.\d+\.", "layers.#.", name)
    module, _, parameter = general.rpartition(".")
    key = f"{MODULES[module]}.{parameter}"
    if number is None:
        return key
    return key.replace("#", number[1])


def _last_two(rows: Tensor) -> Tensor:
    return rows[-2:]


def _adapters(source: Source, shapes: Shapes) -> tuple[dict[str, Piece], Shapes]:
    """Return the LoRA adapters by peft's names, with the shapes they need.

    Every module of the LLM with an adapted one's last name has to have them. ``shapes`` are those
    of the model's tensors. Raises ValueError for adapters of several ranks.
    """
    targets, ranks = _adapted(source)
    if not targets:
        return {}, {}
    if len(ranks) != 1:
        raise ValueError(
            f"{source.path}: LoRA has ranks {sorted(ranks)}, one rank in all modules is read; "
            "merge the adapters before converting"
        )
    (rank,) = ranks
    pieces: dict[str, Piece] = {}
    needed: Shapes = {}
    for name, shape in shapes.items():
        module = name.removesuffix(".weight").removeprefix("llm.")
        _, _, last = module.rpartition(".")
        if not name.startswith("llm.") or len(shape) != 2 or last not in targets:
            continue
        outputs, inputs = shape
        for side, need in (("A", (rank, inputs)), ("B", (outputs, rank))):
            ours = f"{lora.PREFIX}{module}.lora_{side}.weight"
            pieces[ours] = Piece(f"{source.prefix}{module}.lora_{side}.default.weight")
            needed[ours] = need
    return pieces, needed


def _adapted(source: Source) -> tuple[set[str], set[int]]:
    """Return the last names of the modules with adapters in the file, and the adapters' ranks."""
    targets, ranks = set(), set()
    for key, tensor in source.state.items():
        match = LORA_KEY.fullmatch(key)
        if match is None or not key.startswith(source.prefix):
            continue
        _, _, last = match["module"].rpartition(".")
        targets.add(last)
        if match["side"] == "A":
            ranks.add(tensor.shape[0])
    return targets, ranks


def _unused(source: Source) -> set[str]:
    """Return the keys known to have no place: repetitions, which have to repeat, positions, which
    have to be those computed here, and unused parts."""
    for alias, original in ALIASES.items():
        convert.same(source.state, alias, f"{source.prefix}{original}", source.path)
    stored = source.state.get(ADAPTER_POSITIONS)
    if stored is not None and not _are_sinusoids(stored):
        raise ValueError(
            f"{source.path}: {ADAPTER_POSITIONS!r} holds other positions than the adapter's "
            "sinusoids; it is another model"
        )
    known = {*UNUSED, *ALIASES, ADAPTER_POSITIONS}
    return source.state.keys() & known


def _are_sinusoids(stored: Tensor) -> bool:
    """Return whether positions (1, length, width) are those that the adapter computes."""
    table = stored.float().flatten(0, -2)
    length, width = table.shape
    if width % 2:
        return False
    ours = positions(length, width, table.device)
    return torch.allclose(table, ours, rtol=0, atol=POSITION_TOLERANCE)


def _generation(llm: str, language: PreTrainedConfig, end: int) -> GenerationConfig:
    """Make greedy settings with the LLM's tokens, but the end of an answer as its end.

    An Instruct LLM would sample, and end at its chat's.
    """
    try:
        settings = GenerationConfig.from_pretrained(str(llm))
    # Many folders have none.
    except (OSError, ValueError):
        settings = GenerationConfig.from_model_config(language)
    settings.eos_token_id = end
    if settings.pad_token_id is None:
        settings.pad_token_id = end
    return greedy(settings)


def _write_lora(
    folder: Path, read: Read, adapters: dict[str, Piece], llm: str, alpha: float
) -> None:
    """Write the adapters as peft writes them."""
    from peft import LoraConfig

    folder.mkdir()
    convert.write_file(folder / lora.WEIGHTS, read, adapters)
    targets = set()
    for name, piece in adapters.items():
        *_, module, side, _ = name.split(".")
        targets.add(module)
        if side == "lora_A":
            narrow = piece.key
    rank = read()[narrow].shape[0]
    conf = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=LORA_DROPOUT,
        target_modules=sorted(targets),
        task_type="CAUSAL_LM",
        inference_mode=True,
        base_model_name_or_path=None if Path(llm).exists() else llm,
    )
    conf.save_pretrained(folder)
