"""The form in which an Instruct LLM is spoken to, taken from its tokenizer's own chat template.

    system's turn · opening of the user's turn · prompt · SPEECH · end of that turn, opening of the
    assistant's · answer · end of turn

The template is rendered once with marks in the places of prompt and speech, and cut at them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from wenet_osum.text.tokenizer import encode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Marks of private-use characters, which no template changes and no text holds.
PROMPT, SPEECH, ANSWER = "\ue000prompt\ue001", "\ue000speech\ue001", "\ue000answer\ue001"
# The text whose embedding a new model has on both sides of the speech: what disturbs an Instruct
# LLM least. Measured with Qwen2.5-Coder-0.5B-Instruct (dequantized from Q4_K_M), which repeated the
# same 32 transcripts of speechocean762 (test set, lower case), asked in three wordings, with a WER
# of
#     1.5, 1.5, 2.1 %  between line breaks
#    17.0, 10.3, 3.1 % between spaces
#    14.4, 8.2, 7.2 %  between ends of text, as a model in the plain layout has them.
# In a fourth wording and on 128 others it was 5.8 % between line breaks and 3.9 % between spaces.
BOUNDARY = "\n"
# A prompt whose pieces must join as the tokenizer joins the whole.
PROBE = "Transcribe it. 转录。"


@dataclass(frozen=True)
class ChatForm:
    """The texts around prompt, speech and answer."""

    # Token ids up to the last control token before the prompt.
    before: list[int]
    # Plain text between that and the prompt, e.g. "user\n".
    lead: str
    # Token ids between speech and answer.
    after: list[int]
    # Ends the answer: the end of the assistant's turn.
    end_id: int

    def prompt_ids(self, tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
        """Encode everything before the speech.

        A control token that is written in ``prompt`` is spelled out. Lead and prompt are encoded
        together, for the tokenizer may merge letters over their border.
        """
        text = self.lead + prompt
        return [*self.before, *encode(tokenizer, text)]


def read_form(tokenizer: PreTrainedTokenizerBase, system: str | None = None) -> ChatForm:
    """Read the form from the chat template; ``system`` replaces the template's own system message.

    Raises ValueError for a tokenizer without a chat template, and for a template that takes no
    system message, changes what it is given, or names no end of turn.
    """
    name = tokenizer.name_or_path
    if not tokenizer.chat_template:
        raise ValueError(
            f"template: chat: tokenizer {name!r} has no chat template; use an Instruct LLM, "
            "or template: plain for a base LLM"
        )
    asked = [{"role": "system", "content": system}] if system is not None else []
    asked.append({"role": "user", "content": PROMPT + SPEECH})
    before, after = _cut(tokenizer, asked, PROMPT + SPEECH, add_generation_prompt=True)

    # From the last control token on, text may merge with the prompt.
    border = 0
    for control in _controls(tokenizer):
        if control in before:
            end = before.rfind(control) + len(control)
            border = max(border, end)
    form = ChatForm(
        _encode_controls(tokenizer, before[:border]),
        before[border:],
        _encode_controls(tokenizer, after),
        _end_of_turn(tokenizer, asked),
    )
    if form.prompt_ids(tokenizer, PROBE) != _encode_controls(tokenizer, before + PROBE):
        raise ValueError(
            f"template: chat: the pieces of tokenizer {name!r}'s chat template are not encoded as "
            "the whole is; use template: plain"
        )
    return form


def _end_of_turn(tokenizer: PreTrainedTokenizerBase, asked: list[dict[str, str]]) -> int:
    """Find the control token that the template puts behind an answer."""
    told = [*asked, {"role": "assistant", "content": ANSWER}]
    _, rest = _cut(tokenizer, told, ANSWER)
    controls = set(tokenizer.convert_tokens_to_ids(_controls(tokenizer)))
    ends = [i for i in _encode_controls(tokenizer, rest) if i in controls]
    found = ends[0] if ends else tokenizer.eos_token_id
    if found is None:
        raise ValueError(
            f"template: chat: tokenizer {tokenizer.name_or_path!r}'s chat template puts no control "
            "token behind an answer, and there is no eos_token; set one in tokenizer_config.json"
        )
    return found


def _cut(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], mark: str, **how: Any
) -> list[str]:
    """Render a conversation and cut the text at ``mark``."""
    try:
        # Templates of LLMs that can think aloud before they answer open no thoughts then.
        text = tokenizer.apply_chat_template(messages, tokenize=False, enable_thinking=False, **how)
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in messages)
        raise ValueError(
            f"template: chat: the chat template of tokenizer {tokenizer.name_or_path!r} refuses "
            f"messages of {roles}: {error}; leave system out, or use template: plain"
        ) from None
    pieces = text.split(mark)
    if len(pieces) != 2:
        raise ValueError(
            f"template: chat: the chat template of tokenizer {tokenizer.name_or_path!r} writes a "
            f"message {len(pieces) - 1} times instead of once; use template: plain"
        )
    return pieces


def _controls(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """List the control tokens as they are written."""
    added = tokenizer.added_tokens_decoder.values()
    return [token.content for token in added if token.special]


def _encode_controls(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Encode text of the template itself: a control token in it is one."""
    encoded = tokenizer(text, add_special_tokens=False, split_special_tokens=False)
    return list(encoded["input_ids"])
