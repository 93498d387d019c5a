"""Can the LLM do its part? Asked in a chat, it has to repeat transcripts that are given as text.

The token embeddings of a transcript stand in the place of the speech, as a perfect adapter would
put them there, and the answer is decoded as those to speech are. An LLM that does not repeat them
has not understood the layout: its wording, the turns or their end. No adapter can learn that away.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wenet_osum import dist
from wenet_osum.config import REPEAT_PROMPT, DataConfig, TrainConfig
from wenet_osum.dataset.drop import Drop
from wenet_osum.dataset.sample import read_tags
from wenet_osum.dataset.shard import Handles, load_list, read_utterance
from wenet_osum.decode.generate import answer, finish, in_eval_mode, make_row
from wenet_osum.decode.options import DecodeOptions
from wenet_osum.decode.prefix import LLMPrompts
from wenet_osum.models import unread
from wenet_osum.models.layout import Pieces, lay_out, pad_left
from wenet_osum.models.osum import OsumModel
from wenet_osum.records import Hypothesis, Score, Utterance
from wenet_osum.score import score_task
from wenet_osum.tasks.base import Task
from wenet_osum.text import chat
from wenet_osum.text.template import Template
from wenet_osum.train.compare import spread

TASK = "asr"
NORMALIZER = "basic"  # lower case, no punctuation: an LLM writes both as it likes
BATCH = 16  # transcripts decoded at once
SPARE = 16  # tokens that an answer may have beyond twice its transcript's
UNENDED = frozenset({"length_limit", "loop"})  # flags of answers that were cut off


@dataclass
class Repetition:
    """What an LLM made of the transcripts it was to repeat."""

    prompt: str
    template: Template
    utterances: list[Utterance]
    answers: dict[str, Hypothesis]  # by key

    def __post_init__(self) -> None:
        task = self.template.task(TASK)
        scores = score_task(
            task,
            self.utterances,
            self.answers,
            NORMALIZER,
            resamples=1,
            worst=len(self.utterances),
        )
        # The last figure is that of all languages together.
        self.score: Score = scores[-1]

    def __str__(self) -> str:
        title = self.score.about.title
        count = len(self.utterances)
        return (
            f"repeat gate: {title} {self.score.value:.1f} % of {count} transcripts "
            "that the LLM was to repeat"
        )

    def lines(self) -> Iterator[str]:
        """Tell every answer: key, errors, transcript and answer, separated by tabs."""
        worst = self.score.detail["worst"]
        notes = {row["key"]: row["note"] for row in worst}
        for utterance in self.utterances:
            key = utterance.key
            note = notes.get(key, "repeated")
            columns = [key, note, utterance.txt, self.answers[key].text]
            yield "\t".join(columns)

    def check(self, max_wer: float) -> None:
        """Raise ValueError above ``max_wer`` (%), with the worst answer and what to look at."""
        if self.score.value <= max_wer:
            return
        worst = self.score.detail["worst"][0]
        answered = self.answers[worst["key"]].text
        cut = [a for a in self.answers.values() if UNENDED.intersection(a.flags)]
        end = self.template.tokenizer.convert_ids_to_tokens(self.template.end_id)
        raise ValueError(
            f"{self}, above repeat_gate.max_wer {max_wer:g}. Spoken to like this it cannot "
            f"transcribe, however good the adapter is. The worst: {worst['ref']!r} was answered "
            f"{answered!r}. Check that model.llm is an Instruct LLM with its own chat template "
            "(a base LLM wants template: plain), the wording in repeat_gate.prompt, "
            f"{self.prompt!r}, and the end of turn {end!r}, which {len(cut)} of "
            f"{len(self.answers)} answers lack; `wenet_osum repeat_gate` shows all answers, "
            "repeat_gate: {utterances: 0} turns it off"
        )


def check_new(
    conf: TrainConfig,
    data: DataConfig,
    model: nn.Module,
    template: Template,
    world: dist.World,
    log: Callable[[str], None],
) -> None:
    """Hold the gate of a new run and tell its log. Raises ValueError when the LLM fails."""
    # One process asks; all learn what came of it.
    said = dist.from_rank_zero(lambda: check_run(conf, data, model, template, world.device))
    if said:
        log(said)


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
    utterances = with_transcripts(_lists(data), template, gate.utterances)
    if not utterances:
        return "repeat gate: not held, no list has transcripts"
    llm, boundary = _parts_to_ask(conf, model, device)
    found = repeat(llm, boundary, template, utterances, gate.prompt)
    found.check(gate.max_wer)
    return str(found)


def _parts_to_ask(
    conf: TrainConfig, model: OsumModel, device: torch.device
) -> tuple[nn.Module, nn.Module]:
    """Return LLM and speech boundary on ``device``.

    Of an LLM that each process would read a share of, a copy is read whole, in the dtype that
    frozen weights have; it is forgotten after the gate.
    """
    parts = (model.llm, model.speech_boundary)
    if not unread.of_part(model, "llm"):
        llm, boundary = parts
        return llm.to(device), boundary.to(device)
    dtype = torch.bfloat16 if conf.dtype == "bfloat16" else torch.float32
    llm = unread.whole_copy(model, "llm", device, dtype)
    boundary = unread.whole_copy(model, "speech_boundary", device, dtype)
    return llm, boundary


def _lists(data: DataConfig) -> list[str]:
    """Order the lists of a run: dev of recognition, the other dev lists, training."""
    names = sorted(data.dev, key=lambda name: name != TASK)
    dev = [data.dev[name] for name in names]
    train = [source.list for source in data.train]
    return dev + train


def _has_learned(model: OsumModel) -> bool:
    """Tell whether LoRA changes what the LLM says: its matrices B begin as zeros."""
    for name, weight in model.llm.named_parameters():
        if "lora_B" in name and bool(weight.any()):
            return True
    return False


def with_transcripts(lists: Iterable[str], template: Template, count: int) -> list[Utterance]:
    """Read ``count`` utterances with a transcript, from the first list that has any."""
    task = template.task(TASK)
    for path in lists:
        found = []
        for utterance in _some(path, count, task, template):
            ids, _ = template.transcript(utterance)
            if ids:
                found.append(utterance)
        if found:
            return found
    return []


def _some(path: str, count: int, task: Task, template: Template) -> Iterator[Utterance]:
    """Read ``count`` utterances of a list at even distances."""
    handles = Handles()
    rows = []
    for index in load_list(path, Counter()):
        rows += [(index, row) for row in range(len(index))]
    for index, row in spread(rows, count):
        try:
            utterance, *_ = read_utterance(index, row, handles)
            yield read_tags(utterance, task, template)
        except Drop:
            # It is counted when it is drawn for training.
            continue


def boundary_of(llm: nn.Module, template: Template) -> nn.Embedding:
    """Make the speech boundary that a new model has in a chat, for an LLM alone."""
    embed = llm.get_input_embeddings()
    token = template.encode(chat.BOUNDARY)[:1]
    with torch.no_grad():
        vector = embed(_tensor(token, embed.weight.device))
    both = vector.repeat(2, 1)
    return nn.Embedding.from_pretrained(both)


def repeat(
    llm: nn.Module,
    boundary: nn.Module,
    template: Template,
    utterances: list[Utterance],
    prompt: str = REPEAT_PROMPT,
) -> Repetition:
    """Let ``llm`` answer ``prompt`` about each transcript, greedily and without LoRA's dropout."""
    answers = {}
    with in_eval_mode(llm):
        for first in range(0, len(utterances), BATCH):
            part = utterances[first : first + BATCH]
            answers |= _answers(llm, boundary, template, part, prompt)
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
    texts, rows = [], []
    for utterance in utterances:
        ids, _ = template.transcript(utterance)
        texts.append(ids)
        rows.append(embed(_tensor(ids, device)))
    speech = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    lengths = torch.tensor([len(ids) for ids in texts])

    asked = template.encode_prompt(prompt)
    pieces = Pieces(
        prompt_ids=_tensor(asked * len(texts), device),
        prompt_lengths=torch.full_like(lengths, len(asked)),
        speech=speech,
        speech_lengths=lengths,
        suffix_ids=_tensor(template.suffix_ids, device),
    )
    laid, totals = lay_out(embed, boundary, pieces)
    embeddings, mask = pad_left(laid, totals)
    prompts = LLMPrompts(llm, embeddings, mask)

    # The search of decoding. Where it gives up is said by tokens, for there is no audio.
    task = template.task(TASK)
    answers = []
    for utterance, ids in zip(utterances, texts, strict=True):
        options = DecodeOptions(max_tokens=2 * len(ids) + SPARE)
        row = make_row(template, utterance.key, task, 0.0, options)
        answers.append(row)
    answer(prompts, answers, DecodeOptions(), Counter())
    return {found.key: found for found in finish(answers, template, Counter())}


def _tensor(ids: list[int], device: torch.device) -> Tensor:
    return torch.tensor(ids, dtype=torch.int64, device=device)
