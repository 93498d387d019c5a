"""The settings in config.json of a model folder."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from wenet_osum import lookup, migrate

ENCODERS = "wenet_osum.models.encoder"


class OsumConfig(PreTrainedConfig):
    """The parts a model is made of; ``from_pretrained`` needs nothing else."""

    model_type = "wenet_osum"

    # Config of the speech encoder, and of the LLM.
    encoder: Any = None
    llm: Any = None
    # File name in models/adapter, and the arguments of the adapter.
    adapter: str = "conv_transformer"
    adapter_conf: Any = None
    # Times written into speech (models/time_marks.py): every_s, tokens; None: there are none.
    time_marks: Any = None
    # Part → dtype it was saved in, that of loading with dtype "auto".
    part_dtypes: Any = None
    # What it was trained with beside cross-entropy, entries of model.losses; None: nobody knows.
    losses: Any = None
    # Whether cross-entropy of answers was ever among what it was trained with; None: nobody knows.
    answers_trained: Any = None
    # Of the folder (migrate.py); None: it was written before there were numbers.
    format_version: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        migrate.check_version(self.format_version, "config.json")
        self.format_version = migrate.FORMAT_VERSION
        self.encoder = _part_config(self.encoder, "whisper")
        self.llm = _part_config(self.llm, "qwen2")
        self.adapter_conf = dict(self.adapter_conf or {})
        self.part_dtypes = dict(self.part_dtypes or {})
        self.tie_word_embeddings = self.llm.tie_word_embeddings
        super().__post_init__(**kwargs)

    def get_text_config(
        self, decoder: bool | None = None, encoder: bool | None = None
    ) -> PreTrainedConfig:
        """Return the LLM's, which is what generation asks for."""
        return self.llm

    @property
    def end_of_text(self) -> int | None:
        """The token that the LLM's configuration names so, the first where there are several."""
        ends = self.llm.eos_token_id
        if isinstance(ends, list):
            return ends[0]
        return ends


def _part_config(value: dict[str, Any] | PreTrainedConfig | None, default: str) -> PreTrainedConfig:
    """Make the configuration of a part from its table; ``default`` is the type of an empty one."""
    if isinstance(value, PreTrainedConfig):
        return value
    table = dict(value or {})
    # Where it came from on some machine.
    table.pop("_name_or_path", None)
    model_type = table.pop("model_type", default)
    if model_type in lookup.names(ENCODERS):
        # A file of ours may bring its own configuration class.
        lookup.load(ENCODERS, model_type)
    return AutoConfig.for_model(model_type, **table)
