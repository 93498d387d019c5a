"""Turn yaml into typed dataclasses. Every fault of a file is reported at once.

tables.py has every key with a sentence, rules.py what holds between keys, yaml_files.py how files
are read, build on one another, and are written.
"""

from wenet_osum.config.rules import broken_rules, changes_of
from wenet_osum.config.tables import (
    REPEAT_PROMPT,
    AugmentConfig,
    BatchConfig,
    CacheConfig,
    ContextConfig,
    DataConfig,
    EncoderConfig,
    FilterConfig,
    LoraConfig,
    MixtureConfig,
    ModelConfig,
    OptimConfig,
    PartConfig,
    RepeatGateConfig,
    SourceConfig,
    SpecAugmentConfig,
    StoreConfig,
    TrainConfig,
)
from wenet_osum.config.yaml_files import from_dict, load, plain, save
from wenet_osum.typed import ConfigError

__all__ = [
    "REPEAT_PROMPT",
    "AugmentConfig",
    "BatchConfig",
    "CacheConfig",
    "ConfigError",
    "ContextConfig",
    "DataConfig",
    "EncoderConfig",
    "FilterConfig",
    "LoraConfig",
    "MixtureConfig",
    "ModelConfig",
    "OptimConfig",
    "PartConfig",
    "RepeatGateConfig",
    "SourceConfig",
    "SpecAugmentConfig",
    "StoreConfig",
    "TrainConfig",
    "broken_rules",
    "changes_of",
    "from_dict",
    "load",
    "plain",
    "save",
]
