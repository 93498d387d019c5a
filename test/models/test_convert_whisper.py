"""Whisper checkpoints of WeNet and openai-whisper: names against a forward in plain torch, and round trips bit for bit."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import conv1d, gelu, layer_norm, linear, softmax
from transformers import (
    AutoConfig,
    GenerationConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from wenet_osum.bin.convert import main
from wenet_osum.models import build
from wenet_osum.models.convert_whisper import from_pt, to_pt
from wenet_osum.small.train_tokenizer import train_tokenizer
from wenet_osum.text.tokenizer import load_tokenizer

WIDTH, FFN, MELS, VOCABULARY, HEADS, PLACES, TEXT_PLACES = 16, 64, 8, 300, 2, 10, 12
LAYERS = {"encoder": 2, "decoder": 3}
DIMS = {"n_mels": MELS, "n_audio_ctx": PLACES, "n_audio_state": WIDTH, "n_audio_head": HEADS, "n_audio_layer": 2}
DIMS |= {"n_vocab": VOCABULARY, "n_text_ctx": TEXT_PLACES, "n_text_state": WIDTH, "n_text_head": HEADS, "n_text_layer": 3}
WORDS = {  # how each toolkit calls the parts
    "wenet": {
        "conv": "encoder.embed.conv.{}", "convs": (0, 2), "encoder": "encoder.encoders.", "decoder": "decoder.decoders.",
        "places": {"encoder": "encoder.embed.pos_enc.pe", "decoder": "decoder.embed.1.pe"}, "words": "decoder.embed.0.weight",
        "self": "self_attn.linear_", "cross": "src_attn.linear_", "parts": ("q", "k", "v", "out"),
        "in": "feed_forward.w_1", "out": "feed_forward.w_2",
        "norms": {"encoder": ("norm1", "norm2"), "decoder": ("norm1", "norm2", "norm3")},
        "last": {"encoder": "encoder.after_norm", "decoder": "decoder.after_norm"},
    },
    "openai": {
        "conv": "encoder.conv{}", "convs": (1, 2), "encoder": "encoder.blocks.", "decoder": "decoder.blocks.",
        "places": {"encoder": "encoder.positional_embedding", "decoder": "decoder.positional_embedding"}, "words": "decoder.token_embedding.weight",
        "self": "attn.", "cross": "cross_attn.", "parts": ("query", "key", "value", "out"), "in": "mlp.0", "out": "mlp.2",
        "norms": {"encoder": ("attn_ln", "mlp_ln"), "decoder": ("attn_ln", "cross_attn_ln", "mlp_ln")},
        "last": {"encoder": "encoder.ln_post", "decoder": "decoder.ln"},
    },
}  # fmt: skip


def random_state(layout: str, dtype=torch.float32) -> dict:
    names = WORDS[layout]
    shapes = {}
    for place, inputs in zip(names["convs"], (MELS, WIDTH), strict=True):
        shapes |= {f"{names['conv'].format(place)}.weight": (WIDTH, inputs, 3), f"{names['conv'].format(place)}.bias": (WIDTH,)}
    one = (1,) if layout == "wenet" else ()
    shapes |= {names["places"]["encoder"]: (*one, PLACES, WIDTH), names["places"]["decoder"]: (*one, TEXT_PLACES, WIDTH)}
    shapes |= {names["words"]: (VOCABULARY, WIDTH)}
    for part, layers in LAYERS.items():
        norms = [names["last"][part]]
        for number in range(layers):
            layer = f"{names[part]}{number}."
            for kind in ("self", "cross") if part == "decoder" else ("self",):
                for which in names["parts"]:
                    shapes[f"{layer}{names[kind]}{which}.weight"] = (WIDTH, WIDTH)
                    if which != names["parts"][1]:
                        shapes[f"{layer}{names[kind]}{which}.bias"] = (WIDTH,)
            shapes |= {f"{layer}{names['in']}.weight": (FFN, WIDTH), f"{layer}{names['in']}.bias": (FFN,)}
            shapes |= {f"{layer}{names['out']}.weight": (WIDTH, FFN), f"{layer}{names['out']}.bias": (WIDTH,)}
            norms += [layer + norm for norm in names["norms"][part]]
        shapes |= {f"{norm}.{kind}": (WIDTH,) for norm in norms for kind in ("weight", "bias")}
    torch.manual_seed(3)
    return {key: (torch.randn(shape) * 0.4).to(dtype) for key, shape in shapes.items()}


def saved(layout, path, dtype=torch.float32):
    state = random_state(layout, dtype)
    torch.save(state if layout == "wenet" else {"dims": DIMS, "model_state_dict": state}, path)
    return state


def reference(state, names, features, ids):
    """Logits (tokens, V) for features (frames, mels), as both toolkits compute them."""

    def affine(name, x):
        return linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))

    def norm(name, x):
        return layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-5)

    def attend(name, x, source, causal=False):
        inputs = zip(names["parts"], (x, source, source), strict=False)
        q, k, v = (affine(f"{name}{part}", y).view(len(y), HEADS, -1).transpose(0, 1) for part, y in inputs)
        scores = q @ k.transpose(1, 2) / math.sqrt(WIDTH // HEADS)
        if causal:
            scores = scores + torch.full((len(x), len(x)), -math.inf).triu(1)
        return affine(f"{name}{names['parts'][3]}", (softmax(scores, -1) @ v).transpose(0, 1).reshape(len(x), -1))

    def run(part, x, states=None):
        for number in range(LAYERS[part]):
            layer, norms = f"{names[part]}{number}.", iter(names["norms"][part])
            inner = norm(layer + next(norms), x)
            x = x + attend(layer + names["self"], inner, inner, causal=part == "decoder")
            if states is not None:
                x = x + attend(layer + names["cross"], norm(layer + next(norms), x), states)
            x = x + affine(layer + names["out"], gelu(affine(layer + names["in"], norm(layer + next(norms), x))))
        return norm(names["last"][part], x)

    x = features.T[None]
    for stride, place in enumerate(names["convs"], 1):
        name = names["conv"].format(place)
        x = gelu(conv1d(x, state[f"{name}.weight"], state[f"{name}.bias"], stride, padding=1))
    states = run("encoder", x[0].T + state[names["places"]["encoder"]].view(PLACES, WIDTH))
    words = state[names["words"]]
    return run("decoder", words[ids] + state[names["places"]["decoder"]].view(TEXT_PLACES, WIDTH)[: len(ids)], states) @ words.T


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(["the cat sat on the mat"], vocab_size=VOCABULARY).save_pretrained(folder)
    return str(folder)


def convert(pt, out, tokenizer, *more):
    return main(["--whisper_pt", str(pt), "--tokenizer", tokenizer, "--out", str(out), *more])


@pytest.mark.parametrize("layout", ["wenet", "openai"])
@torch.no_grad()
def test_the_folder_computes_what_the_file_did(layout, tokenizer, tmp_path, as_batch):
    state = saved(layout, tmp_path / "in.pt")
    more = ["--heads", str(HEADS)] if layout == "wenet" else []
    assert convert(tmp_path / "in.pt", tmp_path / "out", tokenizer, *more) == 0
    features, ids = torch.randn(2 * PLACES, MELS), torch.randint(0, VOCABULARY, (7,))
    whisper = WhisperForConditionalGeneration.from_pretrained(tmp_path / "out").eval()
    wanted = reference(state, WORDS[layout], features, ids)
    assert wanted.std() > 0.5
    torch.testing.assert_close(whisper(input_features=features.T[None], decoder_input_ids=ids[None]).logits[0], wanted, rtol=0, atol=1e-4)
    phase = build.load(tmp_path / "out")
    answer = {"answer_ids": ids[1:], "answer_lengths": torch.tensor([6]), "prompt_ids": ids[:1], "prompt_lengths": torch.tensor([1])}
    heard = {"features": features[None], "feature_lengths": torch.tensor([2 * PLACES])}
    nll = phase(as_batch(heard | answer)).nll
    start = phase.config.decoder_start_token_id
    wanted = reference(state, WORDS[layout], features, torch.tensor([start, *ids[:-1]]))[1:].log_softmax(-1)
    torch.testing.assert_close(nll, -wanted[torch.arange(6), ids[1:]], rtol=0, atol=1e-4)
    words = load_tokenizer(tmp_path / "out")
    assert (start, phase.config.eos_token_id) == (words.bos_token_id, words.eos_token_id)
    assert WhisperFeatureExtractor.from_pretrained(tmp_path / "out").feature_size == MELS
    assert GenerationConfig.from_pretrained(tmp_path / "out").decoder_start_token_id == start


def same(one, other):
    assert one.keys() == other.keys()
    for key, tensor in one.items():
        assert tensor.dtype == other[key].dtype and torch.equal(tensor, other[key]), key


@pytest.mark.parametrize("layout, flag", [("wenet", "--to_wenet_pt"), ("openai", "--to_whisper_pt")])
def test_round_trips_are_bitwise(layout, flag, tokenizer, tmp_path):
    """Half precision as openai publishes it, with one tensor of another dtype, in one file and in shards."""
    state = saved(layout, tmp_path / "in.pt", torch.float16)
    state[WORDS[layout]["last"]["decoder"] + ".bias"] = torch.randn(WIDTH)
    torch.save(state if layout == "wenet" else {"dims": DIMS, "model_state_dict": state}, tmp_path / "in.pt")
    heads = ["--heads", str(HEADS)] if layout == "wenet" else []
    for name, more in (("one", []), ("many", ["--shard_gib", "0.00001"])):
        assert convert(tmp_path / "in.pt", tmp_path / name, tokenizer, *heads, *more) == 0
        assert main([flag, str(tmp_path / name), "--out", str(tmp_path / f"{name}.pt")]) == 0
        back = torch.load(tmp_path / f"{name}.pt", weights_only=True)
        if layout == "openai":
            assert back.keys() == {"dims", "model_state_dict"} and back["dims"] == DIMS
            back = back["model_state_dict"]
        same(state, back)
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 3


def test_from_one_toolkit_to_the_other_and_back(tokenizer, tmp_path):
    state = saved("openai", tmp_path / "a.pt")
    from_pt(tmp_path / "a.pt", tmp_path / "a", tokenizer)
    to_pt(tmp_path / "a", tmp_path / "b.pt", "wenet")
    assert torch.load(tmp_path / "b.pt", weights_only=True).keys() == random_state("wenet").keys()
    from_pt(tmp_path / "b.pt", tmp_path / "b", tokenizer, heads=HEADS)
    to_pt(tmp_path / "b", tmp_path / "c.pt", "openai")
    same(state, torch.load(tmp_path / "c.pt", weights_only=True)["model_state_dict"])


def test_what_has_no_place_is_told(tokenizer, tmp_path, capsys):
    """WeNet's tied head is dropped, its CTC head is named; a bias of the head would be lost, so it stops."""
    state = saved("wenet", tmp_path / "in.pt")
    extra = {"decoder.output_layer.weight": state["decoder.embed.0.weight"], "decoder.output_layer.bias": torch.zeros(VOCABULARY)}
    extra |= {"ctc.ctc_lo.weight": torch.ones(VOCABULARY, WIDTH), "ctc.ctc_lo.bias": torch.ones(VOCABULARY)}
    torch.save(state | extra, tmp_path / "in.pt")
    assert convert(tmp_path / "in.pt", tmp_path / "out", tokenizer, "--heads", "2") == 0
    assert "left out: ctc.ctc_lo.bias, ctc.ctc_lo.weight, decoder.output_layer.bias" in capsys.readouterr().out
    (tmp_path / "out/ctc_head.safetensors").touch()
    assert main(["--to_wenet_pt", str(tmp_path / "out"), "--out", str(tmp_path / "back.pt")]) == 0
    assert "left out: ctc_head.safetensors" in capsys.readouterr().out
    torch.save(state | extra | {"decoder.output_layer.bias": torch.ones(VOCABULARY)}, tmp_path / "in.pt")
    assert convert(tmp_path / "in.pt", tmp_path / "out2", tokenizer, "--heads", "2") == 1
    assert "a Whisper's head has no bias" in capsys.readouterr().err
    torch.save(state | extra | {"decoder.output_layer.weight": torch.ones(VOCABULARY, WIDTH)}, tmp_path / "in.pt")
    assert convert(tmp_path / "in.pt", tmp_path / "out2", tokenizer, "--heads", "2") == 1
    assert "'decoder.output_layer.weight' should repeat" in capsys.readouterr().err


FAULTS = {
    "unknown": ({"encoder.encoders.0.self_attn.linear_k.bias": torch.zeros(WIDTH)}, "unknown key 'encoder.encoders.0.self_attn.linear_k.bias'"),
    "missing": ({"decoder.decoders.2.src_attn.linear_v.weight": None}, "missing key 'decoder.decoders.2.src_attn.linear_v.weight'"),
    "shape": ({"decoder.after_norm.bias": torch.zeros(WIDTH + 1)}, "'decoder.after_norm.bias' is (17,)"),
    "encoder alone": ({"decoder.embed.0.weight": None}, "no usable key 'decoder.embed.0.weight'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_fit_is_named(fault, tokenizer, tmp_path, capsys):
    changes, said = FAULTS[fault]
    state = {key: tensor for key, tensor in (random_state("wenet") | changes).items() if tensor is not None}
    torch.save(state, tmp_path / "in.pt")
    assert convert(tmp_path / "in.pt", tmp_path / "out", tokenizer, "--heads", "2") == 1
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_other_faults_are_sentences(tokenizer, tmp_path, capsys):
    state = saved("wenet", tmp_path / "in.pt")
    torch.save({"dims": {"n_mels": 8}, "model_state_dict": random_state("openai")}, tmp_path / "dims.pt")
    train_tokenizer(["the cat sat on the mat, " + "".join(map(chr, range(0x4E00, 0x4F00)))], vocab_size=900).save_pretrained(tmp_path / "large")
    from_pt(tmp_path / "in.pt", tmp_path / "whisper", tokenizer, heads=HEADS)
    cases = [
        (["--whisper_pt", "in.pt", "--tokenizer", tokenizer, "--out", "o"], "the width 16 needs a number of attention heads"),
        (["--whisper_pt", "in.pt", "--tokenizer", tokenizer, "--heads", "3", "--out", "o"], "--heads 3: the width 16"),
        (["--whisper_pt", "in.pt", "--heads", "2", "--out", "o"], "give --tokenizer"),
        (["--whisper_pt", "in.pt", "--heads", "2", "--tokenizer", "large", "--out", "o"], f"embeddings for {VOCABULARY}"),
        (["--whisper_pt", "dims.pt", "--tokenizer", tokenizer, "--out", "o"], "must name n_audio_head"),
        (["--to_wenet_pt", "nowhere", "--out", "o.pt"], "no model in 'nowhere'"),
        (["--to_wenet_pt", "whisper", "--out", "in.pt"], "in.pt exists"),
    ]
    for arguments, said in cases:
        places = [str(tmp_path / a) if a in ("in.pt", "dims.pt", "o", "o.pt", "nowhere", "whisper", "large") else a for a in arguments]
        assert main(places) == 1
        error = capsys.readouterr().err.replace(str(tmp_path) + "/", "")
        assert error.startswith("convert: ") and said in error, error
    assert torch.equal(torch.load(tmp_path / "in.pt", weights_only=True)["decoder.embed.0.weight"], state["decoder.embed.0.weight"])


def test_openai_dims_cannot_say_other_feed_forward_widths(folders, tmp_path, capsys):
    assert main(["--to_whisper_pt", str(folders / "whisper"), "--out", str(tmp_path / "o.pt")]) == 1
    assert "openai-whisper knows only 4 x 32" in capsys.readouterr().err
    assert main(["--to_wenet_pt", str(folders / "whisper"), "--out", str(tmp_path / "o.pt")]) == 0
    assert main(["--to_wenet_pt", str(folders / "tied"), "--out", str(tmp_path / "p.pt")]) == 1
    assert "'qwen2', not a Whisper" in capsys.readouterr().err


@pytest.mark.parametrize("vocabulary, end", [(51864, 50256), (51865, 50257), (51866, 50257)])
def test_openai_vocabularies_tell_their_ends(vocabulary, end, tmp_path):
    state = random_state("openai") | {"decoder.token_embedding.weight": torch.zeros(vocabulary, WIDTH)}
    torch.save({"dims": DIMS, "model_state_dict": state}, tmp_path / "in.pt")
    said = from_pt(tmp_path / "in.pt", tmp_path / "out")
    config = AutoConfig.from_pretrained(tmp_path / "out")
    assert (config.eos_token_id, config.decoder_start_token_id, config.vocab_size) == (end, end + 1, vocabulary)
    assert "no tokenizer written" in said[-1]
