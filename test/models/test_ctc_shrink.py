"""Soundwave's adapter: against plain torch, its gradients, and in a whole model."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers import AutoModel

from wenet_osum import config
from wenet_osum.models.adapter.ctc_shrink import Adapter
from wenet_osum.models.objective import make_objective
from wenet_osum.models.osum import OsumModel

WIDTH, LLM_WIDTH, HEADS, BLANK = 8, 16, 2, 0
LENGTHS = torch.tensor([7, 4])
LABELS = torch.tensor([[0, 1, 1, 0, 2, 2, 0], [3, 3, 0, 1, 1, 1, 1]])
NONE = torch.zeros(2, dtype=torch.bool)


def make(**conf):
    torch.manual_seed(0)
    adapter = Adapter(WIDTH, LLM_WIDTH, **({"heads": HEADS} | conf))
    adapter.initialize(0.02)
    if adapter.shrinker.look_back is not None:
        nn.init.normal_(adapter.shrinker.look_back.out.weight, std=0.5)
    return adapter.eval()


def copied_attention(target, source):
    """torch's attention with the weights of ours."""
    parts = (source.query, source.key, source.value)
    target.in_proj_weight.data = torch.cat([part.weight.data for part in parts])
    target.in_proj_bias.data = torch.cat([part.bias.data for part in parts])
    target.out_proj.load_state_dict(source.out.state_dict())


class Reference(nn.Module):
    """What the paper says or its code does, for one utterance, with torch's own layers."""

    def __init__(self, adapter, released):
        super().__init__()
        self.adapter, self.released = adapter, released
        sizes = (LLM_WIDTH, HEADS, 2 * LLM_WIDTH)
        self.layer = nn.TransformerEncoderLayer(
            *sizes, batch_first=not released, norm_first=True, dropout=0.0
        )
        copied_attention(self.layer.self_attn, adapter.layer)
        self.layer.linear1.load_state_dict(adapter.layer.ffn_in.state_dict())
        self.layer.linear2.load_state_dict(adapter.layer.ffn_out.state_dict())
        self.attend = nn.MultiheadAttention(LLM_WIDTH, HEADS, batch_first=True)
        copied_attention(self.attend, adapter.shrinker.look_back)

    def forward(self, states, labels):
        """States (N, D) of one utterance, labels (S,) of what they become."""
        pairs = states.view(1, len(states) // 2, 2 * WIDTH)
        frames = self.adapter.norm(self.layer(self.adapter.input(pairs)))
        kept = torch.cat([torch.tensor([True]), labels[1:] != labels[:-1]])
        ignored = ~kept[None] if self.released else None
        chosen = frames[:, kept]
        looked, _ = self.attend(chosen, frames, frames, key_padding_mask=ignored)
        shrunk = self.adapter.shrinker.look_back.norm(chosen + looked)
        return 0.02 * frames[0], 0.02 * shrunk[0]


@pytest.mark.parametrize("compat", ["intended", "released"])
def test_it_computes_what_plain_torch_does(compat):
    """Released: time stands on the axis of the batch, and look-back ignores what was not kept."""
    adapter = make(compat=compat)
    reference = Reference(adapter, compat == "released").eval()
    states = torch.randn(2, 14, WIDTH)
    frames, lengths = adapter(states, 2 * LENGTHS)
    assert torch.equal(lengths, LENGTHS)
    shrunk, kept = adapter.shrinker(frames, lengths, LABELS, BLANK, NONE)
    for row, (length, count) in enumerate(zip(LENGTHS, kept, strict=True)):
        own = reference(states[row, : 2 * length], LABELS[row, :length])
        torch.testing.assert_close(frames[row, :length], own[0], atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(shrunk[row, :count], own[1], atol=1e-6, rtol=1e-4)


def test_the_two_compats_differ_in_both_places():
    intended, released = make(), make(compat="released")
    states = torch.randn(1, 14, WIDTH)
    frames, lengths = intended(states, torch.tensor([14]))
    others, _ = released(states, torch.tensor([14]))
    assert not torch.allclose(frames, others, rtol=1e-2)
    asked = (frames, lengths, LABELS[:1], BLANK, NONE[:1])
    looked, other = intended.shrinker(*asked)[0], released.shrinker(*asked)[0]
    assert not torch.allclose(looked, other, rtol=1e-2)


@pytest.mark.parametrize("blanks", ["keep", "pool", "drop"])
@pytest.mark.parametrize("runs", ["first", "mean"])
@pytest.mark.parametrize("look_back", [True, False])
def test_shrunk_alone_equals_batch(runs, blanks, look_back):
    adapter = make(runs=runs, blanks=blanks, look_back=look_back)
    frames = torch.randn(2, 7, LLM_WIDTH)
    frames[1, 4:] = torch.nan
    whole = torch.tensor([False, False])
    together, lengths = adapter.shrinker(frames, LENGTHS, LABELS, BLANK, whole)
    assert together.shape[1] == int(lengths.max())
    for row, length in enumerate(LENGTHS.tolist()):
        own = (frames[row : row + 1, :length], LENGTHS[row : row + 1], LABELS[row : row + 1, :length])
        alone, count = adapter.shrinker(*own, BLANK, whole[:1])
        assert count.tolist() == [alone.shape[1]] == [lengths[row]]
        torch.testing.assert_close(together[row, : count[0]], alone[0], atol=1e-6, rtol=1e-4)


def test_utterances_that_stay_whole_stand_beside_shrunk_ones():
    """And weights that only shrinking uses have gradients even then, as DDP wants it."""
    adapter = make()
    frames = torch.randn(2, 7, LLM_WIDTH)
    whole = torch.tensor([True, False])
    mixed, lengths = adapter.shrinker(frames, LENGTHS, LABELS, BLANK, whole)
    shrunk, counts = adapter.shrinker(frames, LENGTHS, LABELS, BLANK, NONE)
    assert lengths.tolist() == [7, int(counts[1])]
    assert torch.equal(mixed[0], frames[0])
    torch.testing.assert_close(mixed[1, : counts[1]], shrunk[1, : counts[1]])
    every, lengths = adapter.shrinker(frames, LENGTHS, LABELS, BLANK, ~NONE)
    assert torch.equal(lengths, LENGTHS)
    every.sum().backward()
    assert all(p.grad is not None for p in adapter.shrinker.parameters())


def test_where_gradients_flow():
    """Kept states alone are heard; with look-back all are. The choice itself has no gradient."""
    frames = torch.randn(1, 7, LLM_WIDTH)
    reached = {}
    for look_back in (False, True):
        leaf = frames.clone().requires_grad_()
        adapter = make(look_back=look_back)
        shrunk, _ = adapter.shrinker(leaf, LENGTHS[:1], LABELS[:1], BLANK, NONE[:1])
        (shrunk * torch.randn_like(shrunk)).sum().backward()
        reached[look_back] = leaf.grad[0].abs().sum(1).ne(0).tolist()
    assert reached[False] == [True, True, False, True, True, False, True]
    assert all(reached[True])


def test_embeddings_begin_at_the_scale_of_text_and_look_back_without_effect():
    torch.manual_seed(0)
    adapter = Adapter(WIDTH, 128).eval()
    adapter.initialize(0.01)
    states = torch.randn(2, 14, WIDTH) * 7 + 3
    frames, lengths = adapter(states, 2 * LENGTHS)
    assert abs(float(frames.detach()[0].std()) - 0.01) < 1e-4
    shrunk, _ = adapter.shrinker(frames, lengths, LABELS, BLANK, NONE)
    torch.testing.assert_close(shrunk[0], frames[0, [0, 1, 3, 4, 6]], atol=1e-6, rtol=1e-3)
    shrunk[0].square().sum().backward()
    torch.optim.AdamW(adapter.parameters(), lr=1e-3).step()
    after, _ = adapter(states, lengths * 2)
    assert float((after - frames)[0].detach().std()) < 0.5 * 0.01


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"runs": "last"}, "runs 'last' must be first or mean"),
        ({"blanks": "lose"}, "blanks 'lose' must be keep or pool or drop"),
        ({"compat": "old"}, "compat 'old' must be intended or released"),
        ({"heads": 3}, "width 16 must be a multiple of heads 3"),
        ({"factor": 0}, "factor 0 must be a whole number"),
        ({"unshrunk": ["srwd"]}, "unshrunk: .*srwt"),
    ],
)
def test_bad_values_are_named(conf, message):
    with pytest.raises(ValueError, match=message):
        make(**conf)


# -- in a whole model ---------------------------------------------------------------------------

CTC = {"name": "ctc", "weight": 0.3}
TASKS = ["<TRANSCRIBE>", "<TRANSCRIBE> <ALIGN>", "<TRANSCRIBE> <GENDER>"]


def objective(ce_weight, *losses):
    return make_objective(config.ModelConfig(ce_weight=ce_weight, losses=[*losses]), None)


@pytest.fixture
def shrinking(folders):
    """Behind 16 classes: most states of an untrained model are like another's neighbor."""
    torch.manual_seed(1)
    conf = {"heads": 2, "ffn": 48, "dropout": 0.0}
    parts = (folders / "whisper", folders / "tied", "ctc_shrink", conf)
    model = OsumModel.from_parts(*parts).eval()
    nn.init.normal_(model.adapter.shrinker.look_back.out.weight, std=0.5)
    model.config.losses = [CTC | {"scores": "distance", "classes": [*range(10, 26)]}]
    return model


def asked(as_batch, batch, tasks=TASKS, **targets):
    made = as_batch(batch, **targets)
    made.tasks = list(tasks)
    return made


def test_ctc_reads_all_states_and_the_llm_what_is_left(shrinking, batch):
    features, frames = batch["features"], batch["feature_lengths"]
    states, lengths = shrinking.adapted(features, frames)
    assert lengths.tolist() == [16, 13, 9] == shrinking.speech_tokens(frames).tolist()
    assert shrinking.embedding_s == pytest.approx(0.04)
    _, kept = shrinking.padded_speech(features, frames, TASKS)
    _, least = shrinking.padded_speech(features, frames)
    assert kept[1] == 13 and (least < lengths).all() and torch.equal(kept[[0, 2]], least[[0, 2]])

    # The head that finds the runs is the one of the loss.
    logits = shrinking.speech_classes().logits(states)
    for row, length in enumerate(lengths.tolist()):
        best = logits[row, :length].argmax(-1)
        assert len(best.unique_consecutive()) == least[row]


def test_packed_equals_padded_equals_alone(shrinking, batch, take, as_batch):
    packed = shrinking(asked(as_batch, batch))
    alone = [shrinking(asked(as_batch, take(batch, row), TASKS[row : row + 1])) for row in range(3)]
    torch.testing.assert_close(packed.nll, torch.cat([one.nll for one in alone]), atol=2e-5, rtol=0)
    counts = [int(one.speech_lengths) for one in alone]
    assert packed.speech_lengths.tolist() == counts

    inputs = {name: value for name, value in batch.items() if not name.startswith("answer")}
    embeddings, mask = shrinking.prompt_embeddings(**inputs, tasks=TASKS)
    expected = batch["prompt_lengths"] + 2 + packed.speech_lengths
    assert torch.equal(mask.sum(1), expected) and embeddings.shape[:2] == mask.shape
    ask = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    together = shrinking.generate(**inputs, tasks=TASKS, **ask)
    for row in range(3):
        one = shrinking.generate(**take(inputs, row), tasks=TASKS[row : row + 1], **ask)
        assert one[0].tolist() == together[row].tolist()


def test_it_is_saved_whole(shrinking, batch, as_batch, tmp_path):
    shrinking.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path).eval()
    assert loaded.adapter.unshrunk == ("srwt",) and float(loaded.adapter.shrinker.gain) > 0
    there, here = loaded(asked(as_batch, batch)), shrinking(asked(as_batch, batch))
    assert torch.equal(there.nll, here.nll)
    assert torch.equal(there.speech_lengths, here.speech_lengths)


def test_in_half_precision(shrinking, batch, as_batch):
    """Under autocast, as in training, and with halved weights, as in decoding."""
    with torch.autocast("cpu", torch.bfloat16):
        cast = shrinking(asked(as_batch, batch))
    halved = copy.deepcopy(shrinking).bfloat16()
    half = halved(asked(as_batch, batch))
    whole = shrinking(asked(as_batch, batch))
    for output in (cast, half):
        torch.testing.assert_close(output.loss.float(), whole.loss, rtol=0.1, atol=0.0)


def test_the_stages_of_soundwave(shrinking, batch, as_batch):
    """CTC alone trains nothing that only the LLM listens to; then both; then answers alone."""
    transcripts = {"transcript_ids": (batch["answer_ids"][:6], [3, 2, 1])}
    shrinking.config.losses = []
    with pytest.raises(ValueError, match="ctc_shrink keeps what CTC hears, .*name: ctc"):
        shrinking.set_objective(objective(1.0))
    shrinking.set_objective(objective(0.0, CTC))
    shrinking.llm.requires_grad_(False)
    shrinking.speech_boundary.requires_grad_(False)
    with pytest.raises(ValueError, match=r"runs no adapter.shrinker.*leave adapter.shrinker.\* out"):
        shrinking(asked(as_batch, batch, **transcripts))
    shrinking.adapter.shrinker.requires_grad_(False)
    first = shrinking(asked(as_batch, batch, **transcripts))
    first.loss.backward()
    assert first.speech_lengths is None and shrinking.adapter.input.weight.grad.abs().sum() > 0

    shrinking.set_objective(objective(1.0, CTC))
    shrinking.adapter.shrinker.requires_grad_(True)
    second = shrinking(asked(as_batch, batch, **transcripts))
    second.loss.backward()
    assert all(p.grad is not None for p in shrinking.adapter.parameters())

    shrinking.set_objective(objective(1.0))
    third = shrinking(asked(as_batch, batch))
    weighted = (third.nll * batch["answer_weights"]).sum()
    torch.testing.assert_close(third.loss.detach(), weighted)
    assert [entry["name"] for entry in shrinking.config.losses] == ["ctc"], "it still finds the runs"


def test_costs_are_counted_for_the_most_that_may_remain(shrinking, batch, as_batch):
    lost = asked(as_batch, batch).to("meta")
    for name in ("feature_lengths", "prompt_lengths", "answer_lengths"):
        setattr(lost, name, batch[name])
    with torch.device("meta"):
        empty = OsumModel(shrinking.config)
    output = empty(lost)
    assert output.speech_lengths.tolist() == [16, 13, 9]


def test_unshrunk_names_the_tasks_whose_speech_stays(shrinking, batch):
    shrinking.adapter.unshrunk = ("sgc",)
    features, frames = batch["features"], batch["feature_lengths"]
    _, kept = shrinking.padded_speech(features, frames, TASKS)
    assert (kept == shrinking.speech_tokens(frames)).tolist() == [False, False, True]
