"""Models with each of the other adapters, and with times in their speech, exported: transformers
alone says what the trained folder says.
"""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModel, AutoProcessor

from wenet_osum.hub import export
from wenet_osum.models import time_marks
from wenet_osum.models.osum import OsumModel

from ..decode.conftest import make_model, save
from .test_export import SOUNDS, TOKENS

ADAPTERS = {
    "linear": {"factor": 2, "layers": 1, "heads": 2},
    "concat_mlp": {"factor": 4},
    "conv_transformer": {"layers": 1, "heads": 2, "ffn": 32},
}


@pytest.mark.parametrize("task", ["asr", "srwt"])
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_generate_says_what_the_trained_folder_says(adapter, task, tmp_path):
    model, template = make_model(adapter=adapter, adapter_conf=ADAPTERS[adapter])
    time_marks.begin(model, 0.16, template.encode)
    trained = save((model, template), tmp_path / "trained")
    export.export(trained, tmp_path / "out")
    loaded = AutoModel.from_pretrained(tmp_path / "out")
    processor = AutoProcessor.from_pretrained(tmp_path / "out")

    inputs = processor(audio=SOUNDS, task=task)
    before = OsumModel.from_pretrained(trained).eval()
    embeddings, mask = before.prompt_embeddings(**inputs)
    speech = mask.sum(1) - inputs["prompt_lengths"] - 2
    most = loaded.speech_tokens(inputs["feature_lengths"])
    assert torch.equal(speech, most) == (task == "srwt"), "times stand where words are to get them"
    for found, wanted in zip(loaded.prompt_embeddings(**inputs), (embeddings, mask), strict=True):
        assert torch.equal(found, wanted)
    said = [each.generate(**inputs, max_new_tokens=TOKENS) for each in (loaded, before)]
    assert torch.equal(*said)
