"""Answer transcripts with a text LLM, in its own chat template.

Such answers are what a model that hears is taught (distillation: nobody has to write a reply), and
what a cascade of recognizer and LLM would say.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from wenet_osum.decode.write import fingerprint, hold_settings
from wenet_osum.files import write_text
from wenet_osum.models.llm.causal import last_position
from wenet_osum.progress import ProgressBar
from wenet_osum.text.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SYSTEM = "Answer in one short sentence."
# Reasons why a transcript has no reply.
NO_END = "no end within the longest reply"
EMPTY = "the reply is empty"


@dataclass
class TextLlm:
    """A chat model, greedy: the same transcript has the same reply every time."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    system: str = SYSTEM
    # of a reply
    max_tokens: int = 60

    @classmethod
    def load(
        cls,
        source: str,
        system: str = SYSTEM,
        max_tokens: int = 60,
        dtype: torch.dtype | None = None,
    ) -> TextLlm:
        """Load a folder or hub name.

        ``dtype`` None: bfloat16 on an accelerator, else float32. Raises ValueError for an LLM whose
        tokenizer has no chat template.
        """
        tokenizer = load_tokenizer(source)
        if not tokenizer.chat_template:
            rule = "replies are asked for in the LLM's own chat template; give an Instruct model"
            raise ValueError(f"{source}: its tokenizer has no chat template; {rule}")
        tokenizer.padding_side = "left"
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token

        fast = torch.accelerator.is_available()
        usual = torch.bfloat16 if fast else torch.float32
        dtype = dtype or usual
        model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
        if fast:
            device = torch.accelerator.current_accelerator()
            model.to(device)
        return cls(model.eval(), tokenizer, system, max_tokens)

    def prompt(self, text: str) -> str:
        """Lay out system text and transcript as the LLM was taught, up to its answer."""
        turns = []
        if self.system:
            turns.append({"role": "system", "content": self.system})
        turns.append({"role": "user", "content": text})
        return self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)

    def replies(self, texts: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Answer a batch of transcripts.

        Yields the reply and an empty text, or what there is of it and the reason why it is none.
        """
        prompts = [self.prompt(text) for text in texts]
        asked = self.tokenizer(
            prompts,
            return_tensors="pt",
            padding=True,
            add_special_tokens=False,
        )
        asked = asked.to(self.model.device)
        ends = self._end_ids()
        greedy = GenerationConfig(
            do_sample=False,
            max_new_tokens=self.max_tokens,
            eos_token_id=ends,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        last = last_position(self.model.device)
        with torch.inference_mode():
            ids = self.model.generate(
                **asked,
                generation_config=greedy,
                logits_to_keep=last,
            )

        # What was generated stands behind the prompt.
        prompt = asked["input_ids"].shape[1]
        replies = ids[:, prompt:].tolist()
        for row in replies:
            text = self.tokenizer.decode(row, skip_special_tokens=True)
            text = " ".join(text.split())
            if not any(token in ends for token in row):
                reason = NO_END
            else:
                reason = "" if text else EMPTY
            yield text, reason

    def _end_ids(self) -> list[int]:
        """Return the tokens that end an answer.

        The published settings may sample; only these are taken from them.
        """
        ends = self.model.generation_config.eos_token_id
        ends = ends or self.tokenizer.eos_token_id
        if isinstance(ends, int):
            return [ends]
        return list(ends)


def hold_asked(kept: Path, llm: str, system: str, max_tokens: int) -> None:
    """Keep beside the file of replies which LLM gives them. Raises ValueError where it was another
    one, or was asked otherwise."""
    settings = {
        "llm": llm,
        "weights": fingerprint(llm),
        "system": system,
        "max_tokens": max_tokens,
    }
    hold_settings(Path(f"{kept}.settings.json"), settings, begun=kept.exists())


def answer_all(
    llm: TextLlm, texts: Sequence[str], kept: Path, batch_size: int = 64
) -> dict[str, tuple[str, str]]:
    """Answer every different transcript once; gives reply and reason by transcript.

    ``kept`` is a file of JSON lines that answers are appended to, batch by batch: a run that was
    stopped goes on behind its last whole line.
    """
    found = _read_kept(kept)
    missing = set(texts) - set(found)
    # Of similar length, so that batches have little padding.
    lacking = sorted(missing, key=lambda text: (len(text), text))
    kept.parent.mkdir(parents=True, exist_ok=True)
    progress = ProgressBar(len(lacking), "transcripts")
    with open(kept, "a", encoding="utf-8", newline="\n") as out:
        for begin in range(0, len(lacking), batch_size):
            batch = lacking[begin : begin + batch_size]
            replies = llm.replies(batch)
            for text, (reply, reason) in zip(batch, replies, strict=True):
                found[text] = (reply, reason)
                row = {"txt": text, "reply": reply, "reason": reason}
                line = json.dumps(row, ensure_ascii=False)
                out.write(f"{line}\n")
            out.flush()
            progress.add(len(batch))
    progress.close()
    return found


def _read_kept(path: Path) -> dict[str, tuple[str, str]]:
    """Read the answers of an earlier run; a last line that was cut off is removed."""
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    write_text(path, "".join(whole))
    found = {}
    for row in map(json.loads, whole):
        found[row["txt"]] = (row["reply"], row["reason"])
    return found


def with_wrong_words(texts: dict[str, str], share: float) -> dict[str, str]:
    """Replace a share of the words of each transcript, by key, with words of other transcripts.

    Shows what so many errors of a recognizer cost. What is drawn depends on the keys alone.
    """
    there: set[str] = set()
    for text in texts.values():
        there.update(text.split())
    words = sorted(there)

    changed = {}
    for key, text in texts.items():
        draw = random.Random(key)
        said = []
        for word in text.split():
            replaced = draw.random() < share
            said.append(draw.choice(words) if replaced else word)
        changed[key] = " ".join(said)
    return changed
