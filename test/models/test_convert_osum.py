"""Published OSUM checkpoints, against the published forward written out in plain torch on the published names."""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
import sys
import weakref
from collections import OrderedDict
from pathlib import Path

import pytest
import soundfile
import torch
from safetensors.torch import load_file
from torch.nn.functional import conv1d, cross_entropy, gelu, layer_norm, linear, pad, silu, softmax
from transformers import GenerationConfig, Qwen2Config

from wenet_osum.bin import transcribe
from wenet_osum.bin.convert import main
from wenet_osum.models import build, convert
from wenet_osum.models.convert_osum import from_osum
from wenet_osum.small.train_tokenizer import train_tokenizer
from wenet_osum.text.template import Template

BENCH = Path(__file__).resolve().parents[2] / "tools/bench/convert_memory.py"
spec = importlib.util.spec_from_file_location("convert_memory", BENCH)
bench = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = bench  # dataclasses look their module up
spec.loader.exec_module(bench)

HEADS, ADAPTER_HEADS, ALPHA = 2, 4, 32.0
SMALL = {"width": 16, "encoder_layers": 2, "ffn": 24, "positions": 120, "adapter_layers": 2, "adapter_ffn": 40, "llm_width": 32, "llm_layers": 2}
SMALL |= {"llm_ffn": 48, "llm_heads": 4, "llm_kv_heads": 2, "vocabulary": 420, "speech_tokens": 7}
PROMPTS = {"<TRANSCRIBE>": ["请转写这段话。", "写下来。"], "<TRANSCRIBE> <EMOTION>": ["转写，再说情绪。"], "<TEXT_CHAT>": ["说话。"]}


def random_state(lora_rank: int = 3, dtype: torch.dtype = torch.float32) -> tuple[dict, object]:
    """A checkpoint with weights large enough that every one of them matters."""
    sizes = bench.Sizes(**SMALL, lora_rank=lora_rank)
    torch.manual_seed(5)
    state = {key: torch.randn(shape) * (0.3 if len(shape) > 1 else 0.2) for key, shape in bench.published(sizes).items()}
    for key, tensor in state.items():
        if len(tensor.shape) == 1 and ("norm" in key or "embed.out.1" in key) and key.endswith("weight"):
            tensor += 1.0
    state["speech_transformer.embed.pos_enc.pe"] = bench.sinusoids(5000, sizes.width)
    return bench.with_aliases({key: tensor.to(dtype) for key, tensor in state.items()}), sizes


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    """The folder of an LLM as --llm takes it: configuration and tokenizer, no weights."""
    folder = tmp_path_factory.mktemp("llm")
    tokenizer = train_tokenizer(["the cat sat on the mat", "今天天气很好。"], vocab_size=420)
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    Qwen2Config(vocab_size=420, eos_token_id=7, bos_token_id=None, tie_word_embeddings=False, **sizes).save_pretrained(folder)
    return str(folder)


def command(pt, llm, out, *more):
    return main(["--osum", str(pt), "--llm", llm, "--heads", str(HEADS), "--out", str(out), *more])


# The published forward


def attend(query, key, value, heads, mask=None):
    """Attention of (length, width) rows, one softmax a head; keys may have fewer heads."""
    size = query.shape[1] // heads
    rows = []
    for head in range(heads):
        shared = head * (key.shape[1] // size) // heads
        q, k, v = query[:, head * size :][:, :size], key[:, shared * size :][:, :size], value[:, shared * size :][:, :size]
        scores = q @ k.T / math.sqrt(size)
        rows.append(softmax(scores if mask is None else scores.masked_fill(~mask, -math.inf), dim=-1) @ v)
    return torch.cat(rows, dim=1)


def affine(state, name, x):
    return linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))


def norm(state, name, x):
    return layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-5)


def transformer(state, name, x, heads, activation):
    """WeNet's pre-norm layer."""
    inner = norm(state, f"{name}.norm1", x)
    query, key, value = (affine(state, f"{name}.self_attn.linear_{part}", inner) for part in "qkv")
    x = x + affine(state, f"{name}.self_attn.linear_out", attend(query, key, value, heads))
    inner = activation(affine(state, f"{name}.feed_forward.w_1", norm(state, f"{name}.norm2", x)))
    return x + affine(state, f"{name}.feed_forward.w_2", inner)


def speech_of(state, sizes, features):
    """Features (frames, mels) of one utterance to speech embeddings."""
    x = features.T[None]
    for place, stride in ((0, 1), (2, 2)):
        name = f"encoder.embed.conv.{place}"
        x = gelu(conv1d(x, state[f"{name}.weight"], state[f"{name}.bias"], stride, padding=1))
    x = x[0].T
    x = x + state["encoder.embed.pos_enc.pe"][0, : len(x)]
    for number in range(sizes.encoder_layers):
        x = transformer(state, f"encoder.encoders.{number}", x, HEADS, gelu)
    x = norm(state, "encoder.after_norm", x).T[None]
    for place, stride in ((1, 1), (4, 2), (7, 2)):
        name = f"down_sample_2.conv.{place}"
        x = gelu(conv1d(pad(x, (2, 0)), state[f"{name}.weight"], state[f"{name}.bias"], stride))
    x = norm(state, "speech_transformer.embed.out.1", affine(state, "speech_transformer.embed.out.0", x[0].T))
    x = x * math.sqrt(sizes.width) + state["speech_transformer.embed.pos_enc.pe"][0, : len(x)]
    for number in range(sizes.adapter_layers):
        x = transformer(state, f"speech_transformer.encoders.{number}", x, ADAPTER_HEADS, torch.relu)
    return affine(state, "speech_llama_proj", norm(state, "speech_transformer.after_norm", x))


def rotate(x, heads):
    """Rotary positions on (length, width)."""
    length, size = len(x), x.shape[1] // heads
    angles = torch.arange(length)[:, None] / 10000.0 ** (torch.arange(0, size, 2) / size)
    x = x.view(length, heads, 2, size // 2)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    return torch.cat([x[:, :, 0] * cos - x[:, :, 1] * sin, x[:, :, 1] * cos + x[:, :, 0] * sin], dim=-1).flatten(1)


def adapted(state, name, x):
    """A linear layer of the LLM, with its LoRA adapter if it has one."""
    if f"{name}.base_layer.weight" not in state:
        return affine(state, name, x)
    a, b = (state[f"{name}.lora_{side}.default.weight"] for side in "AB")
    return affine(state, f"{name}.base_layer", x) + x @ a.T @ b.T * (ALPHA / len(a))


def logits_of(state, sizes, features, prompt, answer):
    """Logits for each token of an answer (A, V)."""
    prefix = "llama_model.base_model.model." if sizes.lora_rank else "llama_model."

    def rms(name, x):
        return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * state[f"{prefix}model.{name}.weight"]

    words, borders = state[f"{prefix}model.embed_tokens.weight"], state["speech_token_emded.weight"]
    start, end = borders[sizes.speech_tokens][None], borders[sizes.speech_tokens + 1][None]
    x = torch.cat([words[prompt], start, speech_of(state, sizes, features), end, words[answer]])
    causal = torch.ones(len(x), len(x), dtype=torch.bool).tril()
    for number in range(sizes.llm_layers):
        layer = f"{prefix}model.layers.{number}"
        inner = rms(f"layers.{number}.input_layernorm", x)
        query, key, value = (adapted(state, f"{layer}.self_attn.{part}_proj", inner) for part in "qkv")
        query, key = rotate(query, sizes.llm_heads), rotate(key, sizes.llm_kv_heads)
        x = x + adapted(state, f"{layer}.self_attn.o_proj", attend(query, key, value, sizes.llm_heads, causal))
        inner = rms(f"layers.{number}.post_attention_layernorm", x)
        inner = silu(adapted(state, f"{layer}.mlp.gate_proj", inner)) * affine(state, f"{layer}.mlp.up_proj", inner)
        x = x + adapted(state, f"{layer}.mlp.down_proj", inner)
    return (rms("norm", x) @ state[f"{prefix}lm_head.weight"].T)[-len(answer) - 1 : -1]


# Ours against it

FRAMES, PROMPT_LENGTHS, ANSWER_LENGTHS = (61, 83, 40), (3, 1, 4), (4, 6, 2)


def utterances():
    torch.manual_seed(9)
    sizes = zip(FRAMES, PROMPT_LENGTHS, ANSWER_LENGTHS, strict=True)
    return [(torch.randn(t, 80), torch.randint(0, 420, (p,)), torch.randint(0, 420, (a,))) for t, p, a in sizes]


def batched(rows):
    features = torch.nn.utils.rnn.pad_sequence([row[0] for row in rows], batch_first=True)
    lengths = [torch.tensor([len(row[part]) for row in rows]) for part in range(3)]
    answers = (torch.cat([row[2] for row in rows]), lengths[2])
    return (features, lengths[0], torch.cat([row[1] for row in rows]), lengths[1]), answers


def nested(state):
    return {"module": OrderedDict(state), "optimizer": None, "global_steps": 3}


def prefixed(state):
    return {f"module.{key}": tensor for key, tensor in state.items()}


FIELDS = [
    "features", "feature_lengths", "prompt_ids", "prompt_lengths", "answer_ids", "answer_lengths",
]  # fmt: skip


@pytest.mark.parametrize("rank, form", [(3, dict), (0, dict), (3, nested), (0, prefixed)], ids=["lora", "plain", "deepspeed", "ddp"])
@torch.no_grad()
def test_logits_are_those_of_the_published_forward(rank, form, llm, tmp_path, as_batch):
    state, sizes = random_state(rank)
    torch.save(form(state), tmp_path / "infer.pt")
    assert command(tmp_path / "infer.pt", llm, tmp_path / "out") == 0
    model = build.load(tmp_path / "out")
    assert (model.lora is not None) == bool(rank)
    rows = utterances()
    wanted = [logits_of(state, sizes, *row) for row in rows]
    assert max(w.abs().max() for w in wanted) > 3, "the weights are so small that a fault would not show"
    for group in ([0], [1], [2], [2, 0, 1]):
        speech, answers = batched([rows[i] for i in group])
        padded, lengths = model.padded_speech(*speech[:2])
        embeddings = torch.cat([row[:length] for row, length in zip(padded, lengths.tolist(), strict=True)])
        torch.testing.assert_close(embeddings, torch.cat([speech_of(state, sizes, rows[i][0]) for i in group]), rtol=0, atol=1e-4)
        nll = cross_entropy(torch.cat([wanted[i] for i in group]), answers[0], reduction="none")
        torch.testing.assert_close(model(as_batch(dict(zip(FIELDS, [*speech, *answers], strict=True)))).nll, nll, rtol=0, atol=1e-4)
        before, mask = model.prompt_embeddings(*speech)
        first = model.llm(inputs_embeds=before, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0)).logits[:, -1]
        torch.testing.assert_close(first, torch.stack([wanted[i][0] for i in group]), rtol=0, atol=1e-4)
    if rank:
        model.merge_lora()
        torch.testing.assert_close(model(as_batch(dict(zip(FIELDS, [*speech, *answers], strict=True)))).nll, nll, rtol=0, atol=1e-4)


def test_it_decodes_through_the_ordinary_path_with_the_users_prompts(llm, tmp_path, capsys):
    state, _ = random_state()
    torch.save(state, tmp_path / "infer.pt")
    shutil.copytree(llm, tmp_path / "instruct")
    llm = str(tmp_path / "instruct")
    GenerationConfig(do_sample=True, temperature=0.7, repetition_penalty=1.05).save_pretrained(llm)
    (tmp_path / "prompts.yaml").write_text(json.dumps(PROMPTS, ensure_ascii=False), encoding="utf-8")
    assert command(tmp_path / "infer.pt", llm, tmp_path / "out", "--prompts", str(tmp_path / "prompts.yaml")) == 0
    assert "left out, no such task here: <TEXT_CHAT>" in capsys.readouterr().out
    template = Template.load(tmp_path / "out")
    assert (template.target_tokenization, template.lowercase) == ("whole", True)
    task = template.task("ser")
    assert template.prompt_text(task) == "转写，再说情绪。" and template.prompt_text(template.task("asr"), pick=1) == "写下来。"
    soundfile.write(tmp_path / "a.wav", torch.randn(9600).numpy() * 0.1, 16000)
    assert transcribe.main(["--model", str(tmp_path / "out"), "--task", "ser", "--max_tokens", "5", "--format", "json", str(tmp_path / "a.wav")]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["labels"]["emotion"] in {name.lower() for name in template.task("ser").label_fields[0].labels.names}
    settings = json.loads((tmp_path / "out/generation_config.json").read_text())
    assert settings["eos_token_id"] == template.end_id
    assert not settings["do_sample"] and not settings.keys() & {"temperature", "repetition_penalty"}
    written = list((tmp_path / "out").rglob("*.json"))
    assert len(written) >= 5 and not [path.name for path in written if str(Path(llm).parent) in path.read_text()], "a place on one machine"


def test_lora_is_what_peft_reads(llm, tmp_path):
    state, _ = random_state()
    torch.save(state, tmp_path / "infer.pt")
    assert command(tmp_path / "infer.pt", llm, tmp_path / "out", "--lora_alpha", "12", "--adapter_heads", "2") == 0
    conf = build.load(tmp_path / "out").lora
    assert (conf.r, conf.lora_alpha, sorted(conf.target_modules)) == (3, 12, sorted(bench.LORA_TARGETS))
    assert json.loads((tmp_path / "out/config.json").read_text())["adapter_conf"]["heads"] == 2
    assert not [name for name in load_file(tmp_path / "out/model.safetensors") if "lora" in name or "base_layer" in name]


def test_shards_hold_the_same_and_the_file_is_closed_between_them(llm, tmp_path, monkeypatch):
    state, _ = random_state(dtype=torch.bfloat16)
    torch.save(state, tmp_path / "infer.pt")
    from_osum(tmp_path / "infer.pt", llm, tmp_path / "one", heads=HEADS)
    opened, real = [], convert.open_pt

    def watched(path):
        assert all(tensor() is None for tensor in opened), "the last shard is still in memory"
        loaded = real(path)
        opened[:] = [weakref.ref(tensor) for tensor in loaded.values()]
        return loaded

    monkeypatch.setattr(convert, "open_pt", watched)
    from_osum(tmp_path / "infer.pt", llm, tmp_path / "many", heads=HEADS, shard_bytes=20_000)
    one = load_file(tmp_path / "one/model.safetensors")
    shards = sorted((tmp_path / "many").glob("model-*.safetensors"))
    assert len(shards) > 3 and sum(path.stat().st_size > 24_000 for path in shards) <= 2, "only the embeddings and the head are larger than a shard"
    many = {name: tensor for path in shards for name, tensor in load_file(path).items()}
    assert one.keys() == many.keys() and all(torch.equal(one[name], many[name]) for name in one)
    assert {tensor.dtype for tensor in one.values()} == {torch.bfloat16}
    loaded = build.load(tmp_path / "many", torch.bfloat16).state_dict()
    assert all(torch.equal(loaded.get(name, loaded.get(name.replace("_proj.", "_proj.base_layer."))), tensor) for name, tensor in one.items())


def test_an_llm_with_tied_embeddings(llm, tmp_path, capsys):
    tied = tmp_path / "tied"
    Template(train_tokenizer(["a b"], vocab_size=300)).save(tied)
    config = Qwen2Config.from_pretrained(llm)
    config.tie_word_embeddings = True
    config.save_pretrained(tied)
    state, _ = random_state(0)
    torch.save(state, tmp_path / "differ.pt")
    assert command(tmp_path / "differ.pt", str(tied), tmp_path / "out") == 1
    assert "'llama_model.lm_head.weight' should repeat 'llama_model.model.embed_tokens.weight'" in capsys.readouterr().err
    state["lm_head.weight"] = state["llama_model.lm_head.weight"] = state["embed_tokens.weight"]
    torch.save(state, tmp_path / "infer.pt")
    assert command(tmp_path / "infer.pt", str(tied), tmp_path / "out") == 0
    assert "llm.lm_head.weight" not in load_file(tmp_path / "out/model.safetensors")
    assert torch.equal(build.load(tmp_path / "out").llm.lm_head.weight, state["lm_head.weight"])
    assert command(tmp_path / "infer.pt", llm, tmp_path / "untied") == 0, "shared in the file, two tensors in the model"
    assert torch.equal(build.load(tmp_path / "untied").llm.lm_head.weight, state["lm_head.weight"])


def changed(state, **changes):
    """The state with keys replaced; None takes one out."""
    return {key: tensor for key, tensor in (state | changes).items() if tensor is not None}


LLM = "llama_model.base_model.model.model"
LAYER = f"{LLM}.layers"
FAULTS = {
    "unknown": ({"decoder.embed.weight": torch.zeros(2)}, "unknown key 'decoder.embed.weight'"),
    "missing": ({"encoder.encoders.1.norm2.bias": None}, "missing key 'encoder.encoders.1.norm2.bias'"),
    "shape": ({"speech_llama_proj.weight": torch.zeros(31, 16)}, "'speech_llama_proj.weight' is (31, 16), adapter.output.weight needs (32, 16)"),
    "integers": ({"speech_llama_proj.bias": torch.zeros(32, dtype=torch.int64)}, "'speech_llama_proj.bias' is torch.int64, weights are floating"),
    "half an adapter": ({f"{LAYER}.1.mlp.gate_proj.lora_B.default.weight": None}, f"missing key '{LAYER}.1.mlp.gate_proj.lora_B.default.weight'"),
    "ranks": ({f"{LAYER}.1.mlp.gate_proj.lora_A.default.weight": torch.zeros(2, 32)}, "ranks [2, 3], one rank in all modules is read"),
    "alias": ({"lm_head.weight": torch.zeros(420, 32)}, "'lm_head.weight' should repeat"),
    "positions": ({"speech_transformer.embed.pos_enc.pe": torch.zeros(1, 5000, 16)}, "other positions than the adapter's sinusoids"),
    "no encoder": ({"encoder.embed.conv.0.weight": None}, "no usable key 'encoder.embed.conv.0.weight'"),
    "other llm": ({f"{LLM}.embed_tokens.weight": torch.zeros(421, 32), "embed_tokens.weight": None}, "421 tokens, width 32"),
    "fewer layers": ({f"{LAYER}.2.input_layernorm.weight": torch.zeros(32)}, "3 layers; --llm"),
    "not a tensor": ({"epoch": 3}, "1 entries are not named tensors ('epoch')"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_fit_is_named(fault, llm, tmp_path, capsys):
    changes, said = FAULTS[fault]
    torch.save(changed(random_state()[0], **changes), tmp_path / "infer.pt")
    assert command(tmp_path / "infer.pt", llm, tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert said in error and "infer.pt" in error
    assert [path.name for path in tmp_path.iterdir()] == ["infer.pt"], "nothing is left behind"


def test_all_faults_are_told_at_once(llm, tmp_path, capsys):
    changes = {f"odd.{i}": torch.zeros(1) for i in range(20)} | {"speech_llama_proj.bias": None}
    torch.save(changed(random_state()[0], **changes), tmp_path / "infer.pt")
    assert command(tmp_path / "infer.pt", llm, tmp_path / "out") == 1
    assert "does not fit, 21 faults: unknown key 'odd.0'" in (error := capsys.readouterr().err) and "and 13 more" in error


def test_a_fault_while_writing_leaves_nothing(llm, tmp_path, monkeypatch, capsys):
    torch.save(random_state()[0], tmp_path / "infer.pt")

    def full(*arguments, **settings):
        raise OSError("No space left on device")

    monkeypatch.setattr(Template, "save", full)
    assert command(tmp_path / "infer.pt", llm, tmp_path / "out") == 1
    assert "No space left" in capsys.readouterr().err and [path.name for path in tmp_path.iterdir()] == ["infer.pt"]


def test_files_of_another_kind_are_refused(llm, tmp_path, capsys):
    state, _ = random_state()
    (tmp_path / "text.pt").write_text("no weights")
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.save({"a": Path("code")}, tmp_path / "code.pt")
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    said_of = {"text": "no readable .pt", "old": "no readable .pt", "code": "more than tensors", "list": "holds a list", "none": "none.pt"}
    for name, said in said_of.items():
        assert command(tmp_path / f"{name}.pt", llm, tmp_path / "out") == 1
        assert said in capsys.readouterr().err
    torch.save(state, tmp_path / "infer.pt")
    assert command(tmp_path / "infer.pt", str(tmp_path / "nowhere"), tmp_path / "out") == 1
    assert "--llm" in capsys.readouterr().err
    assert main(["--osum", str(tmp_path / "infer.pt"), "--llm", llm, "--out", str(tmp_path / "out")]) == 1
    assert "--heads None: the width 16" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full/a").touch()
    assert command(tmp_path / "infer.pt", llm, tmp_path / "full") == 1
    assert "exists and is not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text, said",
    [
        ("a: [b", "cannot be read"),
        ("- a", "got list"),
        ("{<OTHER>: [a]}", "none of <OTHER> is a task"),
        ("{<TRANSCRIBE>: a}", "prompts of '<TRANSCRIBE>'"),
    ],
)
def test_prompts_that_cannot_be_read(text, said, llm, tmp_path, capsys):
    torch.save(random_state()[0], tmp_path / "infer.pt")
    (tmp_path / "p.yaml").write_text(text)
    assert command(tmp_path / "infer.pt", llm, tmp_path / "out", "--prompts", str(tmp_path / "p.yaml")) == 1
    assert said in capsys.readouterr().err
    assert command(tmp_path / "infer.pt", llm, tmp_path / "out", "--prompts", str(tmp_path / "none.yaml")) == 1
    assert "none.yaml cannot be read" in capsys.readouterr().err
