"""Can the LLM do its part? Asked in a chat, it has to repeat transcripts that are given as text.

The token embeddings of a transcript stand in the place of the speech, as a perfect adapter would
put them there, and the answer is decoded as those to speech are. An LLM that does not repeat them
has not understood the layout: its wording, the turns or their end. No adapter can learn that away.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from wenet_osum.config import REPEAT_PROMPT, DataConfig, TrainConfig
from wenet_osum.dataset.drop import Drop
from wenet_osum.dataset.sample import read_tags
from wenet_osum.dataset.shard import Handles, load_list, read_utterance
from wenet_osum.decode.generate import answer, hypothesis, make_row
from wenet_osum.decode.options import DecodeOptions
from wenet_osum.decode.prefix import LLMPrompts
from wenet_osum.models.layout import Pieces, lay_out, pad_left
from wenet_osum.models.osum import OsumModel
from wenet_osum.records import Hypothesis, Score, Utterance
from wenet_osum.score import score_task
from wenet_osum.text import chat
from wenet_osum.text.template import Template
from wenet_osum.train import dist
from wenet_osum.train.compare import spread

if TYPE_CHECKING:
    from wenet_osum.train.run import Run

TASK = "asr"
NORMALIZER = "basic"  # lower case, no punctuation: an LLM writes both as it likes
BATCH = 16  # transcripts decoded at once
SPARE = 16  # tokens that an answer may have beyond twice its transcript's
UNENDED = ("length_limit", "loop")  # flags of answers that were cut off


@dataclass
class Repetition:
    """What an LLM made of the transcripts it was to repeat."""

    prompt: str
    template: Template
    utterances: list[Utterance]
    answers: dict[str, Hypothesis]  # by key

    def __post_init__(self) -> None:
        task, worst = self.template.task(TASK), len(self.utterances)
        scored = (task, self.utterances, self.answers, NORMALIZER)
        # The last figure is that of all languages together.
        self.score: Score = score_task(*scored, resamples=1, worst=worst)[-1]

    def __str__(self) -> str:
        return (
            f"repeat gate: {self.score.about.title} {self.score.value:.1f} % of "
            f"{len(self.utterances)} transcripts that the LLM was to repeat"
        )

    def lines(self) -> Iterator[str]:
        """Tell every answer: key, errors, transcript and answer, separated by tabs."""
        notes = {row["key"]: row["note"] for row in self.score.detail["worst"]}
        for utterance in self.utterances:
            text = self.answers[utterance.key].text
            yield f"{utterance.key}\t{notes.get(utterance.key, 'repeated')}\t{utterance.txt}\t{text}"

    def check(self, max_wer: float) -> None:
        """Raise ValueError above ``max_wer`` (%), with the worst answer and what to look at."""
        if self.score.value <= max_wer:
            return
        worst = self.score.detail["worst"][0]
        unended = sum(any(f in UNENDED for f in a.flags) for a in self.answers.values())
        end = self.template.tokenizer.convert_ids_to_tokens(self.template.end_id)
        raise ValueError(
            f"{self}, above repeat_gate.max_wer {max_wer:g}. Spoken to like this it cannot "
            f"transcribe, however good the adapter is. The worst: {worst['ref']!r} was answered "
            f"{self.answers[worst['key']].text!r}. Check that model.llm is an Instruct LLM with its "
            f"own chat template (a base LLM wants template: plain), the wording in "
            f"repeat_gate.prompt, {self.prompt!r}, and the end of turn {end!r}, which {unended} "
            f"of {len(self.answers)} answers lack; `wenet_osum repeat_gate` shows all answers"
        )


def hold(run: Run) -> None:
    """Hold the gate of a new run and tell its log. Raises ValueError when the LLM fails."""
    if run.source:
        return
    opened = (run.conf, run.data, run.model, run.template, run.world.device)
    # One process asks; all learn what came of it.
    if said := dist.from_rank_zero(lambda: check_run(*opened)):
        run.progress.log(said)


def check_run(
    conf: TrainConfig, data: DataConfig, model: nn.Module, template: Template, device: torch.device
) -> str | None:
    """Hold the gate before a run, on ``device``, where the LLM stays.

    Returns the line for its log, None for a run that has no gate. Raises ValueError when the LLM
    fails.
    """
    gate = conf.repeat_gate
    in_chat = isinstance(model, OsumModel) and template.template == "chat"
    if not in_chat or not conf.model.ce_weight or not gate.utterances:
        return None
    if _has_learned(model):
        return "repeat gate: not held, the LLM's LoRA adapters have learned to answer speech"
    dev = [path for _, path in sorted(data.dev.items(), key=lambda row: row[0] != TASK)]
    lists = [*dev, *(source.list for source in data.train)]
    utterances = with_transcripts(lists, template, gate.utterances)
    if not utterances:
        return "repeat gate: not held, no list has transcripts"
    for part in (model.llm, model.speech_boundary):
        part.to(device)
    found = repeat(model.llm, model.speech_boundary, template, utterances, gate.prompt)
    found.check(gate.max_wer)
    return str(found)


def _has_learned(model: OsumModel) -> bool:
    """Whether LoRA changes what the LLM says: B begins as zeros."""
    rows = model.llm.named_parameters()
    return any("lora_B" in name and bool(weight.any()) for name, weight in rows)


def with_transcripts(lists: Iterable[str], template: Template, count: int) -> list[Utterance]:
    """Read ``count`` utterances with a transcript from the first list that has any, evenly spread."""
    task = template.task(TASK)
    for path in lists:
        indices, handles, found = load_list(path, Counter()), Handles(), []
        places = [(index, row) for index in indices for row in range(len(index))]
        for index, row in spread(places, count):
            try:
                utterance = read_tags(read_utterance(index, row, handles)[0], task, template)
            except Drop:  # counted when it is drawn for training
                continue
            if template.transcript(utterance)[0]:
                found.append(utterance)
        if found:
            return found
    return []


def boundary_of(llm: nn.Module, template: Template) -> nn.Embedding:
    """Make the speech boundary that a new model has in a chat, for an LLM alone."""
    embed = llm.get_input_embeddings()
    with torch.no_grad():
        vector = embed(torch.tensor(template.encode(chat.BOUNDARY)[:1], device=embed.weight.device))
    return nn.Embedding.from_pretrained(vector.repeat(2, 1))


@torch.inference_mode()
def repeat(
    llm: nn.Module,
    boundary: nn.Module,
    template: Template,
    utterances: list[Utterance],
    prompt: str = REPEAT_PROMPT,
) -> Repetition:
    """Let ``llm`` answer ``prompt`` about each transcript, greedily and without LoRA's dropout."""
    training = llm.training
    llm.eval()
    answers = {}
    try:
        for first in range(0, len(utterances), BATCH):
            part = utterances[first : first + BATCH]
            answers |= _answers(llm, boundary, template, part, prompt)
    finally:
        llm.train(training)
    return Repetition(prompt, template, utterances, answers)


def _answers(
    llm: nn.Module,
    boundary: nn.Module,
    template: Template,
    utterances: list[Utterance],
    prompt: str,
) -> dict[str, Hypothesis]:
    embed = llm.get_input_embeddings()
    device = embed.weight.device

    # Transcripts as speech, in the layout of training.
    texts = [template.transcript(utterance)[0] for utterance in utterances]
    rows = [embed(_tensor(ids, device)) for ids in texts]
    speech = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    lengths = torch.tensor([len(ids) for ids in texts])
    asked = template.encode_prompt(prompt)
    pieces = Pieces(
        _tensor(asked * len(texts), device),
        torch.full_like(lengths, len(asked)),
        speech,
        lengths,
        _tensor(template.suffix_ids, device),
    )
    prompts = LLMPrompts(llm, *pad_left(*lay_out(embed, boundary, pieces)))

    # The search of decoding. Where it gives up is said by tokens, for there is no audio.
    task, answers = template.task(TASK), []
    for utterance, ids in zip(utterances, texts, strict=True):
        options = DecodeOptions(max_tokens=2 * len(ids) + SPARE)
        answers.append(make_row(template, utterance.key, task, 0.0, options))
    answer(prompts, answers, DecodeOptions(), Counter())
    return {row.key: hypothesis(row, template) for row in answers}


def _tensor(ids: list[int], device: torch.device) -> Tensor:
    return torch.tensor(ids, dtype=torch.int64, device=device)
