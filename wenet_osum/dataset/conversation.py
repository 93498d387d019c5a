"""Conversation → Sample: each turn as an utterance is, one after another (turns.py)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from wenet_osum.dataset.drop import Drop
from wenet_osum.dataset.sample import (
    ProcessedAudio,
    further_targets,
    process_audio,
    target_of,
    told,
    with_fields,
    wording,
)
from wenet_osum.dataset.sample_config import SampleConfig
from wenet_osum.records import Sample, Utterance
from wenet_osum.tasks.base import Task
from wenet_osum.text.template import FIRST, NEXT, SAME, Target, Template

NOTHING = "conversation: a turn with neither words nor a recording"  # a reason that is counted


def make_conversation(
    utterance: Utterance,
    sounds: Sequence[bytes],
    task: Task,
    template: Template,
    conf: SampleConfig,
    repeat: int = 0,
) -> Sample:
    """Make a Sample of an utterance with earlier turns; ``sounds`` are its recordings in order.

    Each answer is to be learned, also those of earlier turns; without ``conf.answers`` these stand
    there and the last is to be found. Raises Drop for anything that cannot be used.
    """
    waiting = iter(sounds)
    made = []
    place = FIRST
    for turn in (*utterance.turns, utterance):
        # The last turn is asked what the plan says, the others what they were asked.
        is_last = turn is utterance
        asked = task if is_last else _task_of(turn, template)
        sound = ProcessedAudio({"features": torch.empty(0, 0)}, 0.0, 1.0)
        if turn.wav:
            sound = process_audio(turn, next(waiting), conf, repeat)
        learned = asked is not None and (conf.answers or not is_last)
        made.append(_turn(turn, sound, asked, learned, place, template, conf, repeat))
        place = SAME if asked is None else NEXT

    *earlier, last = made
    seconds = sum(turn.audio_s for turn in made)
    return dataclasses.replace(last, turns=earlier, audio_s=seconds)


def _task_of(turn: Utterance, template: Template) -> Task | None:
    """Return what an earlier turn was asked, None where nobody answered it. Raises Drop."""
    if not turn.task:
        return None
    try:
        return template.task(turn.task)
    except ValueError as error:
        raise Drop("conversation: unknown task of a turn", f"{turn.key!r}: {error}") from None


def _turn(
    turn: Utterance,
    sound: ProcessedAudio,
    asked: Task | None,
    learned: bool,
    place: str,
    template: Template,
    conf: SampleConfig,
    repeat: int,
) -> Sample:
    """Add the texts of a turn to its sound: those of an answer only where it is ``asked``."""
    words = turn.prompt or ""
    target = Target()
    if asked is not None:
        turn = with_fields(turn, asked, template, sound.speed)
        words = wording(turn, asked, template, conf, repeat)
    if learned:
        target = target_of(turn, asked, template, conf, sound.seconds)
    if not turn.wav and not words:
        raise Drop(NOTHING, f"{turn.key!r} needs a prompt or a wav")
    return Sample(
        key=turn.key,
        task="" if asked is None else asked.tags,
        **sound.fields,
        prompt_ids=template.encode_prompt(words, place, told(turn, conf, repeat)),
        answer_ids=target.ids,
        answer_weights=target.weights,
        answer_labels=target.labels,
        answer_transcripts=target.transcripts,
        suffix_ids=[] if asked is None else template.suffix_ids,
        targets=further_targets(turn, conf) if turn.wav else {},
        utterance=turn,
        audio_s=sound.seconds,
    )
