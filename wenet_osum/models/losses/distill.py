"""Distillation: the LLM learns to answer speech as it answers text.

The teacher is the LLM itself, without its LoRA, that reads the true transcript in the place of the
speech. Prompt and answer are the same for both. The loss is the Kullback-Leibler divergence of the
student's next token from the teacher's, both softened by a temperature (Hinton et al., 2015, arXiv
1503.02531). It keeps the LLM near what it was.

The teacher was never told to transcribe before it answers, so where a transcript stands in front of
a reply only the tokens of the reply count.

Letters: B utterances, R distilled ones, A their answer tokens, H width of the LLM.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from wenet_osum.devices import to_device
from wenet_osum.models.answers import LLMAnswers, take
from wenet_osum.models.loss import CHUNK
from wenet_osum.models.objective import Speech, UtteranceLosses
from wenet_osum.tasks import parse

if TYPE_CHECKING:
    from wenet_osum.records import Utterance
    from wenet_osum.tasks.base import Task
    from wenet_osum.text.template import Template

TEMPERATURE = 2.0
NO_TRANSCRIPT = "distill: no transcript that the LLM could read"


class Loss:
    """KL divergence from the LLM that reads the transcript, summed over an utterance's tokens.

    ``tasks``: those that are distilled, by name or tags; those whose answers follow from the
    transcript alone, such as replies. Tokens of labels never count, for a label is heard and not
    read; those of a transcript count where no reply follows it. ``temperature`` softens both
    distributions.
    """

    kinds = ("osum",)
    needs_logits = False
    needs_answers = True

    def __init__(
        self,
        template: Template,
        tasks: list[str] | tuple[str, ...] = ("sttc",),
        temperature: float = TEMPERATURE,
    ) -> None:
        if not temperature > 0:
            raise ValueError(f"temperature {temperature} must be above 0")
        self.template = template
        self.temperature = temperature
        parsed = [parse(task) for task in tasks]
        # Whether a reply ends the answer, by the tasks' tags.
        self.ends_in_reply = {task.tags: _has_reply(task) for task in parsed}

    def targets(self, utterance: Utterance) -> dict[str, Tensor]:
        """Return ``transcript_tokens`` (C,), the tokens of the transcript, none where it is not
        known."""
        ids, _ = self.template.transcript(utterance)
        tokens = torch.tensor(ids, dtype=torch.int64)
        return {"transcript_tokens": tokens}

    def __call__(
        self, speech: Speech, targets: dict[str, Tensor], answers: LLMAnswers
    ) -> UtteranceLosses:
        """Compute the losses of a batch.

        Raises ValueError when weights of the LLM other than LoRA's train: there would be no fixed
        teacher.
        """
        _check_teacher(answers.llm)
        batch = answers.batch
        if batch.turns is not None:
            raise ValueError(
                "model.losses distill: reads one recording's transcript, and this micro-batch has "
                "conversations of several turns; drop the loss, or train these lists without it"
            )
        sizes = batch.answer_lengths.cpu()
        count = len(speech.lengths)
        values = torch.zeros(count, device=speech.states.device)
        texts = targets["transcript_tokens"]
        text_lengths = targets["transcript_tokens_lengths"].cpu()

        # Which utterances are asked such a task, and have a transcript.
        tags = [parse(task).tags for task in batch.tasks]
        distilled = [tag in self.ends_in_reply for tag in tags]
        asked = torch.tensor(distilled)
        unknown = asked & (text_lengths == 0)
        left_out = {NO_TRANSCRIPT: unknown.sum()}
        (rows,) = torch.where(asked & ~unknown)
        if not len(rows):
            return UtteranceLosses(values, left_out)

        # Both distributions over the next token at every token of their answers.
        student = take(answers.hidden, sizes, rows)
        read = take(texts, text_lengths, rows)
        teacher = answers.reading(rows, read, text_lengths[rows])
        divergence = kl(answers.head, student, teacher, self.temperature)

        # Summed per utterance, without the tokens of labels and of transcripts before replies.
        owner = torch.repeat_interleave(rows, sizes[rows])
        if batch.answer_labels is not None:
            is_label = take(batch.answer_labels, sizes, rows)
            divergence = divergence.masked_fill(is_label, 0.0)
        if batch.answer_transcripts is not None:
            is_transcript = take(batch.answer_transcripts, sizes, rows)
            replies = [self.ends_in_reply.get(tag, False) for tag in tags]
            has_reply = torch.tensor(replies)[owner]
            has_reply = to_device(has_reply, values.device)
            divergence = divergence.masked_fill(is_transcript & has_reply, 0.0)
        owner = to_device(owner, values.device)
        values = values.index_add(0, owner, divergence)
        return UtteranceLosses(values, left_out)


def _has_reply(task: Task) -> bool:
    """Tell whether the answer ends in a free text."""
    return any(field.kind == "reply" for field in task.fields)


def _check_teacher(llm: nn.Module) -> None:
    """Raise ValueError when the LLM's own weights train."""
    for name, weight in llm.named_parameters():
        if weight.requires_grad and "lora_" not in name:
            raise ValueError(
                f"model.losses distill: llm.{name} trains, so the LLM is no teacher that stays as "
                "it is; train LoRA only, or drop the loss"
            )


def kl(head: nn.Module, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Compute KL(teacher ‖ student) at each token (A,), nats, from hidden states (A, H).

    More than ``CHUNK`` tokens are done in pieces whose logits are computed again in the backward
    pass, as those of the cross-entropy are (models/loss.py).
    """
    if len(student) <= CHUNK:
        return _kl(head, student, teacher, temperature)
    parts = []
    pieces = zip(student.split(CHUNK), teacher.split(CHUNK), strict=True)
    for own, other in pieces:
        part = checkpoint(_kl, head, own, other, temperature, use_reentrant=False)
        parts.append(part)
    return torch.cat(parts)


def _kl(head: nn.Module, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    with torch.no_grad():
        wanted = _softened(head(teacher), temperature)
    found = _softened(head(student), temperature)
    difference = wanted - found
    terms = wanted.exp() * difference
    return terms.sum(-1)


def _softened(logits: Tensor, temperature: float) -> Tensor:
    """Return log-probabilities of logits (…, V), in float32."""
    logits = logits.float()
    softer = logits / temperature
    return softer.log_softmax(-1)
