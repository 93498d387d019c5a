from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModel, Qwen2ForCausalLM

from wenet_osum import config
from wenet_osum.models import answers as answers_module
from wenet_osum.models import lora
from wenet_osum.models.build import set_checkpointing
from wenet_osum.models.llm import causal
from wenet_osum.models.objective import Objective, make_objective
from wenet_osum.models.osum import OsumModel

ROOT = Path(__file__).resolve().parents[2]
LORA = config.LoraConfig(r=2, alpha=4.0, targets=["q_proj", "down_proj"])


def objective(ce_weight, *losses):
    """No template is needed: the tests bring the targets themselves."""
    return make_objective(config.ModelConfig(ce_weight=ce_weight, losses=[*losses]), None)


def with_lora(model):
    model.add_lora(LORA)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def gradients(model, batches):
    model.zero_grad()
    for one in batches:
        model(one).loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def padded_nll(model, batch):
    """The same by transformers' own padded forward over prompt embeddings and answers."""
    logits, valid, answers = padded_logits(model, batch)
    return torch.nn.functional.cross_entropy(logits[valid], answers[valid], reduction="none")


def padded_logits(model, batch):
    """Logits (B, A of the longest, V) before each answer token, which of them count, and the answers."""
    prompt, mask = model.prompt_embeddings(**{k: v for k, v in batch.items() if "answer" not in k})
    answers = torch.nn.utils.rnn.pad_sequence(batch["answer_ids"].split(batch["answer_lengths"].tolist()), batch_first=True)
    valid = torch.arange(answers.shape[1]) < batch["answer_lengths"][:, None]
    embeddings = torch.cat([prompt, model.get_input_embeddings()(answers)], 1)
    mask = torch.cat([mask, valid.long()], 1)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    logits = model.llm(inputs_embeds=embeddings, attention_mask=mask, position_ids=positions, use_cache=False).logits
    return logits[:, prompt.shape[1] - 1 : -1], valid, answers


def test_packed_equals_padded_equals_single(model, either, take, as_batch):
    packed = model(as_batch(either))
    singles = [model(as_batch(take(either, row))) for row in range(3)]
    torch.testing.assert_close(packed.nll, torch.cat([s.nll for s in singles]), atol=2e-5, rtol=0)
    torch.testing.assert_close(packed.nll, padded_nll(model, either).detach(), atol=2e-5, rtol=0)
    torch.testing.assert_close(packed.loss, sum(s.loss for s in singles))
    torch.testing.assert_close(packed.loss.detach(), (packed.nll * either["answer_weights"]).sum())
    torch.testing.assert_close(packed.weight, either["answer_weights"].sum())
    together, apart = gradients(model, [as_batch(either)]), gradients(model, [as_batch(take(either, row)) for row in range(3)])
    assert together.keys() == apart.keys() == {n for n, p in model.named_parameters() if n != "encoder.embed_positions.weight"}
    for name, gradient in together.items():
        torch.testing.assert_close(gradient, apart[name], atol=1e-4, rtol=1e-4, msg=name)


def test_logits_are_the_same_packed_padded_and_alone(model, either, take, monkeypatch, as_batch):
    """All logits at the answers, not only those of the right tokens."""
    seen = []

    def token_losses(head, hidden, targets):
        seen.append(head(hidden).detach())
        return original(head, hidden, targets)

    original = answers_module.token_losses
    monkeypatch.setattr(answers_module, "token_losses", token_losses)
    model(as_batch(either))
    for row in range(3):
        model(as_batch(take(either, row)))
    packed, alone = seen[0], torch.cat(seen[1:])
    torch.testing.assert_close(packed, alone, atol=2e-5, rtol=0)
    logits, valid, _ = padded_logits(model, either)
    torch.testing.assert_close(packed, logits[valid].detach(), atol=2e-5, rtol=0)


def other_first(batch):
    changed = {name: value.clone() for name, value in batch.items()}
    changed["features"][0] += torch.randn_like(changed["features"][0])
    changed["prompt_ids"][:3] = torch.tensor([5, 6, 7])
    changed["answer_ids"][:5] = torch.tensor([8, 9, 10, 11, 12])
    return changed


def test_utterances_do_not_see_each_other(model, batch, monkeypatch, as_batch):
    before, after = model(as_batch(batch)).nll, model(as_batch(other_first(batch))).nll
    assert (before[:5] - after[:5]).abs().max() > 1e-2
    torch.testing.assert_close(before[5:], after[5:], atol=1e-6, rtol=0)
    attend = causal._per_segment

    def ignore_borders(query, key, value, packing, *rest):
        return attend(query, key, value, causal.Packing([sum(packing.lengths)]), *rest)

    monkeypatch.setattr(causal, "_per_segment", ignore_borders)
    leaking = model(as_batch(batch)).nll[5:] - model(as_batch(other_first(batch))).nll[5:]
    assert leaking.abs().max() > 1e-4, "the test cannot see a leak"


def test_checkpointing_gives_the_same_gradients(model, batch, as_batch):
    model.requires_grad_(True)
    model.llm.requires_grad_(False)  # frozen layers recompute too, and keep utterances apart when they do
    model.adapter.dropout.p = 0.0
    for layer in model.adapter.layers:
        layer.dropout.p = 0.0
    plain = gradients(model.train(), [as_batch(batch)])
    set_checkpointing(model)
    again = gradients(model.train(), [as_batch(batch)])
    assert model.llm.model.layers[0].training and not model.llm.model.layers[0].self_attn.training
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient, atol=1e-5, rtol=1e-5, msg=name)


def test_greedy_batch_equals_single_and_teacher_forcing(model, either, take, as_batch):
    inputs = {k: v for k, v in either.items() if not k.startswith("answer")}
    ask = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False}
    together = model.generate(**inputs, **ask)
    singles = [model.generate(**take(inputs, row), **ask)[0] for row in range(3)]
    assert together.tolist() == [s.tolist() for s in singles] and len({tuple(row) for row in together.tolist()}) > 1
    free = together[:, :6].clone()
    check = model(as_batch(inputs | {"answer_ids": free.flatten(), "answer_lengths": torch.tensor([6, 6, 6])}))
    greedy = check.correct | (free.flatten() == 0)
    assert greedy.float().mean() > 0.9  # the end of text is forbidden in generate, so a token may differ


def test_speech_embeddings_alone_and_in_a_batch(model, batch, take):
    speech, lengths = model.padded_speech(batch["features"], batch["feature_lengths"])
    assert lengths.tolist() == [8, 7, 5] and speech.shape == (3, 8, 32)
    alone, _ = model.padded_speech(*(take(batch, 1)[k] for k in ("features", "feature_lengths")))
    torch.testing.assert_close(speech[1, :7], alone[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("llm", ["tied", "untied"])
@pytest.mark.parametrize("lora", [False, True])
def test_round_trip(folders, batch, tmp_path, llm, lora, as_batch):
    model = OsumModel.from_parts(folders / "whisper", folders / llm, adapter_conf={"heads": 2, "layers": 1, "ffn": 16}).eval()
    model = with_lora(model) if lora else model
    model.save_pretrained(tmp_path / "model")
    loaded = AutoModel.from_pretrained(tmp_path / "model").eval()
    assert torch.equal(loaded(as_batch(batch)).nll, model(as_batch(batch)).nll)
    assert (loaded.llm.lm_head.weight is loaded.llm.model.embed_tokens.weight) == (llm == "tied")
    assert loaded.state_dict().keys() == model.state_dict().keys()
    names = set(load_file(tmp_path / "model" / "model.safetensors"))
    assert "llm.model.layers.0.self_attn.q_proj.weight" in names and not [n for n in names if "lora" in n or "base_layer" in n]
    assert (tmp_path / "model" / "lora" / "adapter_model.safetensors").exists() == lora
    assert str(folders) not in json.dumps(json.loads((tmp_path / "model" / "config.json").read_text()))


def test_an_llm_that_samples_makes_a_model_that_does_not(folders, tmp_path):
    language = Qwen2ForCausalLM.from_pretrained(folders / "tied")
    chatty = {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "repetition_penalty": 1.05}
    language.generation_config.update(**chatty, eos_token_id=[1, 3])
    language.save_pretrained(tmp_path / "instruct")
    adapter = {"heads": 2, "layers": 1, "ffn": 16}
    made = OsumModel.from_parts(folders / "whisper", tmp_path / "instruct", adapter_conf=adapter)
    made.save_pretrained(tmp_path / "model")
    settings = json.loads((tmp_path / "model/generation_config.json").read_text())
    assert not settings.pop("do_sample") and not settings.keys() & chatty.keys()
    tokens = {name: value for name, value in settings.items() if name.endswith("_token_id")}
    assert tokens == {"bos_token_id": 1, "eos_token_id": [1, 3], "pad_token_id": 0}


def test_lora_folder_is_what_peft_reads_and_merging_changes_nothing(folders, model, batch, tmp_path, as_batch):
    plain = model(as_batch(batch)).nll
    with_lora(model).save_pretrained(tmp_path)
    adapted = model(as_batch(batch)).nll
    assert (plain - adapted).abs().max() > 1e-2
    theirs = PeftModel.from_pretrained(Qwen2ForCausalLM.from_pretrained(folders / "tied"), str(tmp_path / "lora")).eval()
    ids = torch.tensor([[4, 5, 6]])
    torch.testing.assert_close(theirs(ids).logits, model.llm(ids).logits, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="merge"):
        model.add_lora(LORA)
    model.merge_lora()
    assert not [n for n in model.state_dict() if "lora" in n]
    torch.testing.assert_close(model(as_batch(batch)).nll, adapted, atol=1e-5, rtol=0)


def test_unknown_targets_and_adapter_arguments_are_named(folders, model):
    with pytest.raises(ValueError, match="query_proj.*q_proj"):
        model.add_lora(config.LoraConfig(targets=["query_proj"]))
    with pytest.raises(ValueError, match="conv_transformer.*haeds"):
        OsumModel.from_parts(folders / "whisper", folders / "tied", adapter_conf={"haeds": 2})
    with pytest.raises(ValueError, match="did you mean 'conv_transformer'"):
        OsumModel.from_parts(folders / "whisper", folders / "tied", adapter="conv_transfomer")


def test_ctc_in_the_loss(model, batch, as_batch):
    """ce_weight · answers + w · CTC on the adapter's output; fillers have neither."""
    model.config.llm.eos_token_id = 2
    transcripts = {"transcript_ids": (batch["answer_ids"][:6], [3, 2, 1])}
    plain = model(as_batch(batch)).loss
    model.set_objective(objective(0.75, {"name": "ctc", "weight": 0.25}))
    with pytest.raises(ValueError, match="ctc needs 'transcript_ids' in the batch"):
        model(as_batch(batch))
    mixed = model(as_batch(batch, **transcripts))
    speech, lengths = model.padded_speech(batch["features"], batch["feature_lengths"])
    classes = model.get_input_embeddings().weight
    expected = 0.0
    for padded, length, target in zip(speech, lengths.tolist(), batch["answer_ids"][:6].split([3, 2, 1]), strict=True):
        rows = padded[:length]
        logs = (rows / rows.square().mean(1, keepdim=True).sqrt() @ classes.T).log_softmax(-1)
        expected += torch.nn.functional.ctc_loss(logs, target, (len(rows),), (len(target),), blank=2, reduction="sum")
    assert torch.allclose(mixed.loss, 0.75 * plain + 0.25 * expected, rtol=1e-4)
    assert [int(n) for n in mixed.left_out.values()] == [0, 0]
    silent = {"answer_weights": torch.zeros_like(batch["answer_weights"])}
    assert float(model(as_batch(batch | silent, **transcripts)).loss) == 0.0
    first = torch.tensor([[0.0, 0.08]] + [[-torch.inf, torch.inf]] * 5)
    timed = model(as_batch(batch, **transcripts, transcript_times=(first, [3, 2, 1])))
    assert torch.equal(timed.loss, mixed.loss), "another loss may have asked for the times"
    model.set_objective(objective(0.75, {"name": "ctc", "weight": 0.25, "word_times": True}))
    whenever = torch.tensor([[-torch.inf, torch.inf]] * 6)
    again = model(as_batch(batch, **transcripts, transcript_times=(whenever, [3, 2, 1])))
    torch.testing.assert_close(again.loss, mixed.loss)
    assert model(as_batch(batch, **transcripts, transcript_times=(first, [3, 2, 1]))).loss > mixed.loss + 0.1


def test_without_cross_entropy_the_llm_does_not_run(model, batch, as_batch):
    """Alignment by CTC alone: neither the LLM's layers nor its head are called, and training them is refused."""
    transcripts = {"transcript_ids": (batch["answer_ids"][:6], [3, 2, 1])}
    model.set_objective(objective(0.0, {"name": "ctc", "weight": 1.0}))
    with pytest.raises(ValueError, match="ce_weight 0 runs no llm and speech_boundary, yet train_parts names it"):
        model(as_batch(batch, **transcripts))
    model.llm.requires_grad_(False)
    model.speech_boundary.requires_grad_(False)
    called = []
    for module in model.llm.modules():
        module.register_forward_pre_hook(lambda module, _: called.append(type(module).__name__))
    output = model(as_batch(batch, **transcripts))
    output.loss.backward()
    assert not called, f"of the LLM ran {called}"
    assert model.adapter.output.weight.grad.abs().sum() > 0
    unweighted = model(as_batch(batch | {"answer_weights": None}, **transcripts))
    torch.testing.assert_close(unweighted.nll.sum(), output.loss.detach())
    assert not unweighted.correct.any()


def test_a_model_remembers_what_it_was_trained_with(model, tmp_path):
    """The losses of a run and of those before it; folders of before such a record say nothing."""
    assert model.config.losses == []
    ctc, other = {"name": "ctc", "weight": 0.5}, {"name": "ctc", "weight": 0.1, "word_times": True}
    model.set_objective(objective(1.0, ctc))
    model.save_pretrained(tmp_path)
    loaded = OsumModel.from_pretrained(tmp_path)
    assert loaded.config.losses == [ctc] and loaded.objective.losses == []
    loaded.set_objective(objective(1.0, other))
    assert loaded.config.losses == [other]
    loaded.set_objective(Objective())
    assert loaded.config.losses == [other], "the embeddings were trained with it"
    old = json.loads((tmp_path / "config.json").read_text())
    del old["losses"]
    (tmp_path / "config.json").write_text(json.dumps(old))
    assert OsumModel.from_pretrained(tmp_path).config.losses is None


def test_ctc_without_a_blank_is_refused(model):
    model.config.llm.eos_token_id = None
    with pytest.raises(ValueError, match="eos_token_id, which is the blank"):
        model.set_objective(objective(1.0, {"name": "ctc", "weight": 0.5}))


def test_loading_a_model_loads_no_loss(folders, model, tmp_path):
    model.set_objective(objective(1.0, {"name": "ctc", "weight": 0.5}))
    model.save_pretrained(tmp_path)
    code = f"import sys; from wenet_osum.models.osum import OsumModel; OsumModel.from_pretrained({str(tmp_path)!r}); "
    code += "print([name for name in sys.modules if name.startswith('wenet_osum.models.losses')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_the_settings_of_adapters_are_those_asked_for(model, tmp_path):
    asked = config.LoraConfig(r=2, alpha=6.0, dropout=0.25, targets=["down_proj", "q_proj"])
    model.add_lora(asked)
    assert model.llm.model.layers[0].self_attn.q_proj.scaling["default"] == 3.0
    model.save_pretrained(tmp_path)
    assert lora.settings(str(tmp_path)) == asked
