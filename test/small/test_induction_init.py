"""The weights a small LLM begins with: what its first heads look at, and that it copies before any training."""

import random

import pytest
import torch

from wenet_osum.small.induction_init import init_induction_heads, time_tokens
from wenet_osum.small.models import SmallLlm, small_llm
from wenet_osum.small.pseudo_speech import FRAME_S
from wenet_osum.small.sinusoids import span_waves
from wenet_osum.small.train_tokenizer import train_tokenizer

WORDS = [f"{a}{b}{c}" for a in "bdfgklmn" for b in "aeiou" for c in "stpr"]
MOMENTS = [i / 20 for i in range(100)]  # s


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([" ".join(WORDS)] * 3, 1200)


def fresh(tokenizer, **changes):
    torch.manual_seed(3)
    sizes = {"width": 192, "layers": 3, "heads": 4, "kv_heads": 4, "ffn": 64, "induction_init": True} | changes
    return small_llm(SmallLlm(**sizes), tokenizer).eval()


def written(tokenizer, words, seed=0):
    """Token ids of words with blanks between them, then the words again; and where the second part begins."""
    draw, blank = random.Random(seed), tokenizer.eos_token_id
    frames = [i for word in words for i in [word, *[blank] * draw.choice([0, 1, 2, 3])]]
    return torch.tensor([[*frames, blank, *words]]), len(frames) + 1


def copied(llm, tokenizer):
    """Share of tokens that the LLM repeats in the right order."""
    whole = [ids[0] for word in WORDS if len(ids := tokenizer(" " + word)["input_ids"]) == 1]
    right = []
    for seed in range(40):
        words = random.Random(seed).sample(whole, 6)
        ids, begin = written(tokenizer, words, seed)
        with torch.no_grad():
            said = llm(input_ids=ids).logits[0, begin:-1].argmax(-1).tolist()
        right += [a == b for a, b in zip(said, words[1:], strict=True)]
    return sum(right) / len(right)


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_it_copies_untrained(tokenizer, kv_heads):
    assert copied(fresh(tokenizer, kv_heads=kv_heads), tokenizer) > 0.1 > 0.02 > copied(fresh(tokenizer, induction_init=False), tokenizer)


def test_the_first_head_notes_the_last_token_that_is_no_blank(tokenizer):
    llm = fresh(tokenizer)
    llm.set_attn_implementation("eager")
    words = [ids[0] for word in WORDS if len(ids := tokenizer(" " + word)["input_ids"]) == 1][:8]
    ids, begin = written(tokenizer, words)
    with torch.no_grad():
        looked = llm(input_ids=ids, output_attentions=True).attentions[0][0, 0].argmax(-1).tolist()
    row = ids[0].tolist()
    last = [max((j for j in range(i) if row[j] != tokenizer.eos_token_id), default=0) for i in range(begin)]
    assert sum(a == b for a, b in zip(looked, last, strict=False)) >= 0.7 * begin


def test_the_last_layer_adds_nothing_yet(tokenizer):
    layer = fresh(tokenizer).model.layers[2]
    assert not layer.self_attn.o_proj.weight.any() and not layer.mlp.down_proj.weight.any()


@pytest.mark.parametrize("changes", [{"layers": 1}, {"kv_heads": 1}])
def test_too_small_for_it(tokenizer, changes):
    with pytest.raises(ValueError, match="at least 2 layers and 2 key heads"):
        init_induction_heads(fresh(tokenizer, induction_init=False, **changes), tokenizer.eos_token_id)


def test_a_time_begins_like_the_frames_of_a_word_that_starts_or_ends_then(tokenizer):
    timed = train_tokenizer([f"<{i / 100:.2f}>one<{i / 100 + 0.3:.2f}> <{i / 100 + 0.4:.2f}>two" for i in range(400)], 600)
    times = time_tokens(timed)
    assert all(pytest.approx(middle) in [*times.values()] for middle in (0.45, 1.95, 3.35))
    table = fresh(timed).get_input_embeddings().weight.detach()
    torch.testing.assert_close(table[[*times]].norm(dim=1), torch.ones(len(times)), rtol=0.1, atol=0.0)
    for token, time in times.items():
        starts, ends = (span_waves(torch.tensor(spans) / FRAME_S, 192) for spans in ([[t, t + 9] for t in MOMENTS], [[t + 9, t] for t in MOMENTS]))
        assert all(abs(MOMENTS[int((waves @ table[token]).argmax())] - time) < 0.06 for waves in (starts, ends))


def test_other_tokens_begin_as_they_would_without_times(tokenizer):
    assert time_tokens(tokenizer) == {}


class Tokens(list):
    """A tokenizer whose token i is text i."""

    def decode(self, ids):
        return "".join(self[i] for i in ids)


def test_tokens_that_begin_a_time_have_the_middle_of_those_that_begin_so():
    found = time_tokens(Tokens(["<0.2", " <11.3", "<1.25", "<12", "<1.", "3>", "a<0.1", "<0.2>", "<0.-1"]))
    assert found == {0: pytest.approx(0.25), 1: pytest.approx(11.35), 2: pytest.approx(1.255)}
