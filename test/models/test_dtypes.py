"""Folders of every phase trained in bfloat16: loaded as saved, each part has the dtype it was saved
in.
"""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModel, WhisperForConditionalGeneration

from wenet_osum import config
from wenet_osum.config import OptimConfig, PartConfig
from wenet_osum.dist import _halve_frozen
from wenet_osum.models import build, trainable
from wenet_osum.models.osum import OsumConfig, OsumModel
from wenet_osum.models.whisper import WhisperPhase

PHASES = {
    2: (
        ["adapter.*", "speech_boundary.*"],
        {
            "encoder": "bfloat16",
            "llm": "bfloat16",
            "adapter": "float32",
            "speech_boundary": "float32",
        },
    ),
    3: (
        ["adapter.*", "encoder.*"],
        {
            "encoder": "float32",
            "llm": "bfloat16",
            "adapter": "float32",
            "speech_boundary": "bfloat16",
        },
    ),
    4: (
        ["*lora*", "adapter.*"],
        {
            "encoder": "bfloat16",
            "llm": "bfloat16",
            "adapter": "float32",
            "speech_boundary": "bfloat16",
        },
    ),
}


def freeze(model, patterns):
    trainable.apply_train_parts(model, {pattern: PartConfig() for pattern in patterns}, OptimConfig())
    _halve_frozen(model)


def dtypes_of(model):
    found = {}
    for name, parameter in model.named_parameters():
        part = "lora" if ".lora_" in name else name.split(".")[0]
        found.setdefault(part, set()).add(str(parameter.dtype).removeprefix("torch."))
    return {part: dtypes.pop() if len(dtypes) == 1 else dtypes for part, dtypes in found.items()}


@pytest.mark.parametrize("phase", PHASES)
def test_each_part_is_loaded_as_it_was_saved(model, batch, tmp_path, phase, as_batch):
    patterns, wanted = PHASES[phase]
    if phase == 4:
        model.add_lora(config.LoraConfig(r=2, alpha=4.0, targets=["q_proj", "down_proj"]))
        wanted = wanted | {"lora": "float32"}
    freeze(model, patterns)
    model.save_pretrained(tmp_path)
    said = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert said["part_dtypes"] == {part: dtype for part, dtype in wanted.items() if part != "lora"}
    assert (said["encoder"]["dtype"], said["llm"]["dtype"]) == (wanted["encoder"], wanted["llm"])
    for again in (
        build.load(tmp_path, "auto"),
        AutoModel.from_pretrained(tmp_path),
        OsumModel.from_pretrained(tmp_path, dtype="auto"),
    ):
        assert dtypes_of(again) == wanted
        assert all(
            torch.equal(value, model.state_dict()[name])
            for name, value in again.state_dict().items()
        )
        assert again.eval()(as_batch(batch)).loss.isfinite()
    assert again.llm.base_model.rotary_emb.inv_freq.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_dtype_that_is_asked_for_is_that_of_all_parts(model, tmp_path, dtype):
    freeze(model, ["adapter.*"])
    model.save_pretrained(tmp_path)
    whole = OsumConfig.from_pretrained(tmp_path)
    for again in (
        build.load(tmp_path, dtype),
        OsumModel.from_pretrained(tmp_path, config=whole, dtype=dtype),
    ):
        assert {p.dtype for p in again.parameters()} == {dtype}
    assert whole.part_dtypes["adapter"] == "float32", "the caller's configuration is left alone"


def test_a_part_of_two_dtypes_is_kept_in_the_wider(model, tmp_path):
    """The sinusoids never train."""
    freeze(model, ["encoder.*"])
    assert model.encoder.embed_positions.weight.dtype == torch.bfloat16
    model.save_pretrained(tmp_path)
    assert dtypes_of(build.load(tmp_path, "auto"))["encoder"] == "float32"


@pytest.mark.parametrize("patterns", [["*"], ["decoder.*"], ["encoder.*", "ctc_head.*"]])
def test_phase_1_too(folders, batch, tmp_path, patterns, as_batch):
    model = WhisperPhase.from_pretrained(folders / "whisper")
    model.add_ctc_head(model.blank)
    freeze(model, patterns)
    wanted = dtypes_of(model)
    wanted = {
        part: "float32" if isinstance(dtype, set) else dtype for part, dtype in wanted.items()
    }
    model.save_pretrained(tmp_path)
    again = build.load(tmp_path, "auto")
    assert dtypes_of(again) == wanted
    assert all(
        torch.equal(value, model.state_dict()[name]) for name, value in again.state_dict().items()
    )
    assert again(as_batch(batch)).loss.isfinite()
    plain = WhisperForConditionalGeneration.from_pretrained(tmp_path)
    assert plain.dtype == torch.float32, (
        "readers that know one dtype only must not round what was trained"
    )
