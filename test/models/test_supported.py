"""Which LLMs are taken and which are refused, by tiny random models of transformers' classes."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from wenet_osum.models.llm import causal, proof, supported
from wenet_osum.models.osum import OsumModel

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
SIZES |= {
    "num_key_value_heads": 2,
    "head_dim": 8,
    "bos_token_id": 1,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LATENT = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
DEEPSEEK = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}

TAKEN = {
    "qwen2": {},
    "qwen3": {},
    "llama": {},
    "mistral": {"sliding_window": 4},
    "gemma": {},
    "gemma3_text": {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]},
    "olmo2": {},
    "phi3": {},
    "glm4": {},
    "qwen3_moe": EXPERTS,
    "deepseek_v3": LATENT | DEEPSEEK,
}

MIXED = {"layer_types": ["linear_attention", "full_attention"]}
STATES = {
    "linear_num_value_heads": 2,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
REFUSED = {
    "qwen3_next": (MIXED | STATES | EXPERTS, "linear attention or a state space"),
    "qwen3_5_text": (MIXED | STATES, "linear attention or a state space"),
    "falcon_h1": ({}, "state space"),
    "lfm2": ({"layer_types": ["conv", "full_attention"]}, "a convolution over the text"),
    "jamba": ({}, "state space"),
    "mamba": ({"state_size": 4}, "state space"),
    "gpt_oss": ({"num_local_experts": 4, "num_experts_per_tok": 2}, "attention sinks"),
    "gemma2": ({}, "final_logit_softcapping"),
}


def tiny(kind, **changes):
    return AutoConfig.for_model(kind, **(SIZES | changes))


@pytest.fixture
def save(tmp_path):
    """save(kind, **changes): a folder with a random model of that kind."""

    def saved(kind, **changes):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(tiny(kind, **changes)).save_pretrained(tmp_path / kind)
        return str(tmp_path / kind)

    return saved


@pytest.mark.parametrize("kind", TAKEN)
def test_softmax_attention_is_taken_and_proven(save, kind):
    proof.check_packed(causal.read(save(kind, initializer_range=0.2, **TAKEN[kind])))


@pytest.mark.parametrize("kind", REFUSED)
def test_other_models_are_refused_by_name_with_the_reason(tmp_path, kind):
    changes, reason = REFUSED[kind]
    config = tiny(kind, **changes)
    with pytest.raises(ValueError, match=f"{kind} has .*{reason}"):
        causal.create(config)
    config.save_pretrained(tmp_path)
    if kind != "gpt_oss":  # that one is known by its weights
        with pytest.raises(ValueError, match=f"{kind} has .*{reason}"):
            causal.read(str(tmp_path))


def test_a_position_bias_is_refused_by_its_key():
    with pytest.raises(ValueError, match=r"falcon has a position bias in attention \(alibi\)"):
        causal.create(AutoConfig.for_model("falcon", alibi=True))


@pytest.fixture
def llm(folders):
    return causal.read(str(folders / "untied"))


def test_a_layer_that_looks_across_the_border_is_found(llm):
    proof.check_packed(llm)

    def looking_back(module, arguments, hidden):
        return hidden + hidden.roll(1, dims=1)

    shift = llm.base_model.layers[0].mlp.register_forward_hook(looking_back)
    with pytest.raises(
        ValueError, match=r"qwen2: packed, the \w+ of two utterances differs .* choose"
    ):
        proof.check_packed(llm)
    shift.remove()
    proof.check_packed(llm.to(torch.bfloat16))


def test_an_argument_of_attention_that_is_left_out_is_found(monkeypatch):
    """Sinks: packed equals alone, and both differ from transformers."""
    monkeypatch.setattr(supported, "check_modules", lambda llm: None)
    torch.manual_seed(0)
    llm = causal.create(tiny("gpt_oss", initializer_range=0.2, **REFUSED["gpt_oss"][0])).eval()
    with pytest.raises(ValueError, match=r"attention sinks \(s_aux\)"):
        proof.check_packed(llm)
    monkeypatch.setattr(supported, "check_arguments", lambda arguments: None)
    with pytest.raises(ValueError, match="gpt_oss: packed, the first of two utterances differs"):
        proof.check_packed(llm)


def test_states_that_are_no_numbers_prove_nothing(llm):
    llm.base_model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="differs from transformers' own forward by nan"):
        proof.check_packed(llm)


def test_a_model_that_does_not_hand_the_packing_on_is_refused():
    torch.manual_seed(0)
    with pytest.raises(ValueError, match="nemotron: packed"):
        proof.check_packed(causal.create(tiny("nemotron", initializer_range=0.2)).eval())


def test_for_weights_without_numbers_others_stand_in():
    with torch.device("meta"):
        llm = causal.create(tiny("qwen2"))
        mixing = causal.create(tiny("nemotron", initializer_range=0.2))
    proof.check_packed(llm)
    with pytest.raises(ValueError, match="nemotron: packed"):
        proof.check_packed(mixing)
    with torch.device("meta"), pytest.raises(ValueError, match="attention sinks"):
        causal.create(tiny("gpt_oss", **REFUSED["gpt_oss"][0]))


def test_models_are_built_of_proven_llms_only(folders, tmp_path):
    """A folder of a class that is taken by its name, but fails the proof."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(tiny("nemotron", initializer_range=0.2)).save_pretrained(
        tmp_path
    )
    with pytest.raises(ValueError, match="nemotron: packed"):
        OsumModel.from_parts(folders / "whisper", tmp_path)


def test_a_multimodal_folder_is_refused_with_a_sentence(tmp_path):
    parts = {"text_config": SIZES, "vision_config": {"hidden_size": 16, "num_hidden_layers": 1}}
    AutoConfig.for_model("gemma3", **parts).save_pretrained(tmp_path)
    said = r"gemma3 is more than an LLM, it comes with vision_config; .* alone \(gemma3_text\)"
    with pytest.raises(ValueError, match=said):
        causal.read(str(tmp_path))
    AutoConfig.for_model("qwen3_5").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="qwen3_5_text has layers of type 'linear_attention'"):
        causal.read(str(tmp_path))


def test_speech_begins_as_large_as_the_embeddings_that_the_llm_takes(folders, save):
    """Gemma multiplies those of its table by the root of its width."""
    adapter = {"layers": 1, "heads": 2, "ffn": 16}
    model = OsumModel.from_parts(folders / "whisper", save("gemma"), adapter_conf=adapter)
    tokens = model.get_input_embeddings()(torch.arange(64)).detach()
    assert tokens.std() > 5 * model.get_input_embeddings().weight.std()
    torch.testing.assert_close(model.speech_boundary.weight.detach(), tokens[1].expand(2, -1))
    states = torch.nn.functional.layer_norm(torch.randn(200, 32), (32,))
    speech = model.adapter.gain * model.adapter.output(states)
    assert 0.8 < float(speech.detach().std() / tokens.std()) < 1.2
