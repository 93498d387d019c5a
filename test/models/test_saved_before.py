"""A folder that an earlier version saved (commit 5478401, random weights) still loads and computes what it did."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from wenet_osum.models import build
from wenet_osum.text.template import Template

FOLDER = Path(__file__).parent / "saved_by_5478401"


@torch.no_grad()
def test_a_folder_of_before_gives_the_same_logits():
    model, kept = build.load(FOLDER), load_file(FOLDER / "expected.safetensors")
    prompts = torch.tensor([5, 6, 7, 8]), torch.tensor([3, 1])
    embeddings, mask = model.prompt_embeddings(kept["features"], torch.tensor([60, 43]), *prompts)
    logits = model.llm(inputs_embeds=embeddings, attention_mask=mask).logits[:, -1]
    torch.testing.assert_close(logits, kept["logits"], rtol=0, atol=1e-5)


def test_its_label_sets_are_read_and_nothing_is_claimed_of_its_training():
    template = Template.load(FOLDER)
    assert template.labels == {"emotion": ["happy", "bored"]}
    assert build.load(FOLDER).config.losses is None
