"""A cache of fixed size: the same answers as with one that grows, whatever leaves, and one cache for all batches."""

from __future__ import annotations

import gc

import pytest
import torch

from wenet_osum.decode import static_prefix
from wenet_osum.decode.generate import generate
from wenet_osum.decode.options import DecodeOptions
from wenet_osum.decode.prefix import Prefixes
from wenet_osum.decode.static_prefix import StaticPrefixes, power_of_two
from wenet_osum.models.llm import causal
from wenet_osum.tasks import parse

TASKS = ["asr", "ser", "sttc", "srwt", "<EMOTION><TRANSCRIBE>", "asr", "<TRANSCRIBE><EMOTION><GENDER>"]
FRAMES = [37, 160, 61, 123, 90, 10, 88]


@pytest.fixture(autouse=True)
def fresh_rooms():
    static_prefix.rooms.clear()


def texts(parts, clips, batch_of, static: bool, order: list[int] | None = None, **settings) -> list[tuple]:
    model, template = parts
    tasks = [parse(name) for name in TASKS]
    batch = batch_of(template, clips(FRAMES), tasks, order)
    chosen = tasks if order is None else [tasks[i] for i in order]
    options = DecodeOptions(static_cache=static, max_tokens=14, **settings)
    return [(one.text, one.probs, one.flags) for one in generate(model, template, batch, chosen, options)]


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.9}, {"free": True}], ids=["greedy", "sampling", "free"])
def test_answers_are_those_of_a_cache_that_grows(parts, clips, batch_of, settings):
    static, growing = (texts(parts, clips, batch_of, static, **settings) for static in (True, False))
    for (text, probs, flags), (expected, own, own_flags) in zip(static, growing, strict=True):
        assert text == expected and flags == own_flags
        for field, found in own.items():
            assert probs[field] == pytest.approx(found, abs=1e-5)


def test_a_cache_that_is_full_grows(parts, clips, batch_of, monkeypatch):
    expected = texts(parts, clips, batch_of, False)
    monkeypatch.setattr(static_prefix, "POSITIONS", 3)
    assert [text for text, _, _ in texts(parts, clips, batch_of, True)] == [text for text, _, _ in expected]
    room = static_prefix.rooms[parts[0].llm]
    assert room.length % 3 == 0


def test_batches_share_one_cache_and_its_steps(parts, clips, batch_of):
    texts(parts, clips, batch_of, True)
    room = static_prefix.rooms[parts[0].llm]
    steps = dict(room.steps)
    assert room.count == 8 and {rows for rows, _ in steps} > {8}  # answers end at different times
    assert all(power_of_two(rows) == rows for rows, _ in steps)
    again = texts(parts, clips, batch_of, True, order=[4, 2, 0])
    assert static_prefix.rooms[parts[0].llm] is room
    assert all(room.steps[key] is step for key, step in steps.items())
    assert [text for text, _, _ in again] == [text for text, _, _ in texts(parts, clips, batch_of, False, order=[4, 2, 0])]
    # What a step reads and writes lies where it lay.
    first = next(iter(steps.values()))
    where = (first.ids.data_ptr(), first.mask.data_ptr(), room.keys[0].data_ptr(), room.steps[8, None].cache.layers[0].keys.data_ptr())
    texts(parts, clips, batch_of, True)
    assert where == (first.ids.data_ptr(), first.mask.data_ptr(), room.keys[0].data_ptr(), room.steps[8, None].cache.layers[0].keys.data_ptr())


@torch.no_grad()
def test_rows_that_leave_and_scores_in_between(prompts):
    static, growing = StaticPrefixes(*prompts), Prefixes(*prompts)
    for prefixes in (static, growing):
        prefixes.feed([5, 6, 7])
        prefixes.keep([2, 1])
        prefixes.feed([8, 9])
    assert static.step.count == 2 and static.filled == 8  # cut to the longest that is left
    options = [[[5, 6, 7], [8]], [[9, 10]]]
    for own, expected in zip(static.score([1, 0], options), growing.score([1, 0], options), strict=True):
        assert own == pytest.approx(expected, abs=1e-4)
    for prefixes in (static, growing):
        prefixes.feed([3, 4])
    assert torch.allclose(static.logits, growing.logits, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: steps are replayed as CUDA graphs")
def test_on_a_gpu_answers_are_those_of_a_cache_that_grows(parts, clips, batch_of):
    model, _ = parts
    try:
        model.to("cuda")
        static, growing = (texts(parts, clips, batch_of, static) for static in (True, False))
        room = static_prefix.rooms[model.llm]
        assert all(step.graph is not None for step in room.steps.values())
        assert [text for text, _, _ in static] == [text for text, _, _ in growing]
    finally:
        model.to("cpu")


@torch.no_grad()
def test_two_batches_at_once_are_refused(prompts):
    first = StaticPrefixes(*prompts)
    StaticPrefixes(*prompts)
    with pytest.raises(AssertionError, match="another batch"):
        first.feed([1, 2, 3])


@torch.no_grad()
def test_the_cache_goes_with_its_llm(prompts):
    llm, embeds, mask = prompts
    own = causal.create(llm.config).eval()
    StaticPrefixes(own, embeds, mask).feed([1, 2, 3])
    assert len(static_prefix.rooms) == 1
    del own
    gc.collect()
    assert not static_prefix.rooms


@pytest.mark.parametrize("settings", [{"num_beams": 2}, {"ctc_draft": True}, {"mode": "ctc_greedy_search"}])
def test_what_does_not_go_with_it_is_refused(settings):
    with pytest.raises(ValueError, match="static_cache"):
        DecodeOptions(static_cache=True, **settings)


def test_windows_are_refused(parts, monkeypatch):
    model, _ = parts
    static_prefix.check_model(model.llm)
    monkeypatch.setattr(model.llm.config, "layer_types", ["full_attention", "sliding_attention"])
    with pytest.raises(ValueError, match="look back over a window"):
        static_prefix.check_model(model.llm)
