"""The tiny model of the tests of decoding, as a folder, also with LoRA."""

import pytest
import torch
from peft import LoraConfig

from wenet_osum.models.osum import OsumModel

from ..decode.conftest import chat_dir, chat_parts, model_dir, parts

__all__ = ["chat_dir", "chat_parts", "model_dir", "parts"]


@pytest.fixture(scope="module")
def lora_dir(parts, model_dir, tmp_path_factory):
    """The tiny model with LoRA that does something, and an end of text that comes now and then."""
    torch.manual_seed(5)
    model, template = OsumModel.from_pretrained(model_dir), parts[1]
    model.llm.lm_head.weight.data[template.end_id] *= 2.5
    model.add_lora(LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj", "down_proj"]))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    folder = tmp_path_factory.mktemp("lora")
    model.save_pretrained(folder)
    template.save(folder)
    return folder
