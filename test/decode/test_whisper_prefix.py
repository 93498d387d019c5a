"""Phase 1 answers with its own decoder: as without a cache, alone as in a batch, within its positions."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from wenet_osum import tasks
from wenet_osum.decode.generate import generate
from wenet_osum.decode.options import DecodeOptions
from wenet_osum.decode.whisper_prefix import WhisperPrompts
from wenet_osum.models.whisper import WhisperPhase

FRAMES = [90, 41, 12]
START = 1


@pytest.fixture(scope="module")
def phase(parts):
    """A tiny Whisper with the tokenizer of ``parts``, whose answers are lively."""
    _, template = parts
    torch.manual_seed(5)
    sizes = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    ids = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, "decoder_start_token_id": START}
    config = WhisperConfig(vocab_size=len(template.tokenizer), num_mel_bins=8, encoder_ffn_dim=64, decoder_ffn_dim=64, **sizes, **ids)
    model = WhisperPhase(WhisperForConditionalGeneration(config))
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.3)
    return model.eval()


def teacher_forced(model, clip, prompt, answer):
    """Logits of the token after prompt and answer, without any cache."""
    states, lengths = model.encoder(clip[None], torch.tensor([len(clip)]))
    fields = (torch.tensor(prompt), torch.tensor([len(prompt)]), torch.tensor([*answer, 0]), torch.tensor([len(answer) + 1]))
    ids = model._decoder_input(*fields)
    from wenet_osum.models.whisper import run_decoder

    return model.proj_out(run_decoder(model.decoder, ids, states[:, : lengths[0]], None))[0, -1]


def test_answers_are_those_without_a_cache(phase, parts, clips, batch_of):
    template, asr = parts[1], tasks.parse("asr")
    options = DecodeOptions(free=True, max_tokens=9)
    for row, answer in enumerate(generate(phase, template, batch_of(template, clips(FRAMES), [asr] * 3), options=options)):
        said = []
        while len(said) < 9:
            with torch.no_grad():
                logits = teacher_forced(phase, clips(FRAMES)[row], template.prompt_ids(asr), said)
            said.append(int(logits.argmax()))
            if said[-1] == template.end_id:
                break
        assert answer.text == template.decode(said)


@pytest.mark.parametrize("beams", [1, 3])
def test_alone_as_in_a_batch(phase, parts, clips, batch_of, beams):
    """Prompts of unlike lengths, labels in the middle, rows that end early."""
    template = parts[1]
    asked = [tasks.parse(name) for name in ("ser", "<GENDER><AGE>", "srwt")]
    options = DecodeOptions(num_beams=beams, max_tokens=8)
    together = generate(phase, template, batch_of(template, clips(FRAMES), asked), options=options)
    for row, answer in enumerate(together):
        [alone] = generate(phase, template, batch_of(template, clips(FRAMES), asked, [row]), options=options)
        assert (alone.text, alone.labels, alone.flags) == (answer.text, answer.labels, answer.flags)
        for name, probs in answer.probs.items():
            assert alone.probs[name] == pytest.approx(probs, abs=1e-4)
    assert together[0].labels.keys() == {"emotion"} and together[1].labels.keys() == {"gender", "age"}


def test_scores_are_log_probabilities_by_teacher_forcing(phase, parts, clips, batch_of):
    template, task = parts[1], tasks.parse("asr")
    clip, prompt = clips([41])[0], template.prompt_ids(tasks.parse("asr"))
    wanted = [[7, 9, 11], [8]]
    with torch.no_grad():
        prompts = WhisperPrompts(phase, batch_of(template, clips([90, 41]), [task] * 2))
        prefixes = prompts.prefixes([0, 1], [[5], [6, 5]])
        prefixes.keep([1, 0])
        [scores, _] = prefixes.score([0, 1], [wanted, wanted])
        for ids, score in zip(wanted, scores, strict=True):
            slow = sum(
                float(teacher_forced(phase, clip, prompt, [6, 5, *ids[:i]]).log_softmax(-1)[token])
                for i, token in enumerate(ids)
            )
            assert score == pytest.approx(slow, abs=1e-4)


@pytest.mark.parametrize("beams", [1, 2])
def test_answers_end_where_the_positions_do(phase, parts, clips, batch_of, monkeypatch, beams):
    """The label still has its place, and the flag says that the text was cut."""
    template, ser = parts[1], tasks.parse("ser")
    prompt = len(template.prompt_ids(ser))
    longest = max(len(ids) for ids in template.label_ids(ser.label_fields[0]).values())
    monkeypatch.setattr(phase.config, "max_target_positions", prompt + longest + 1 + 4)
    monkeypatch.setattr(template, "end_id", -1)  # it never ends by itself
    weights = phase.decoder.embed_positions.weight
    monkeypatch.setattr(weights, "data", weights.data[: prompt + longest + 1 + 4])
    counts = Counter()
    options = DecodeOptions(num_beams=beams)
    [answer] = generate(phase, template, batch_of(template, clips([90]), [ser]), options=options, counts=counts)
    assert "length_limit" in answer.flags and answer.labels.keys() == {"emotion"}


def test_a_prompt_that_leaves_no_place_is_refused(phase, parts, clips, batch_of, monkeypatch):
    template, task = parts[1], tasks.parse("asr")
    monkeypatch.setattr(phase.config, "max_target_positions", 3)
    with pytest.raises(ValueError, match="prompt too long: .* reaches 3"):
        generate(phase, template, batch_of(template, clips([90]), [task]))


@pytest.mark.parametrize("beams", [1, 2])
def test_answers_can_begin_with_a_given_text(phase, parts, clips, batch_of, beams):
    """A text for which the decoder has no positions is refused."""
    template, asr = parts[1], tasks.parse("asr")
    batch = batch_of(template, clips(FRAMES), [asr] * 3)
    answers = generate(phase, template, batch, options=DecodeOptions(num_beams=beams, max_tokens=9, prefix_text="the cat"))
    assert all(answer.text.startswith("the cat") and len(answer.text) > 7 for answer in answers)
    with pytest.raises(ValueError, match="prefix_text too long"):
        generate(phase, template, batch, options=DecodeOptions(num_beams=beams, prefix_text="the cat " * 400))
