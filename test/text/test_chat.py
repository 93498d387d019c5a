"""The layout of a chat: what the tokenizer's own chat template writes, around prompt and speech."""

from __future__ import annotations

import copy
import json

import pytest

from wenet_osum.records import Utterance
from wenet_osum.small.train_tokenizer import train_tokenizer
from wenet_osum.text.template import Template, read_settings


def changed(tokenizer, chat_template):
    other = copy.deepcopy(tokenizer)
    other.chat_template = chat_template
    return other


@pytest.mark.parametrize("system", [None, "Be brief."])
def test_prompt_and_suffix_are_what_the_chat_template_writes(chat_tokenizer, system):
    template = Template(chat_tokenizer, template="chat", system=system)
    task = template.task("asr")
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": task.prompts("en")[0]})
    wanted = chat_tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    asked = template.prompt_ids(task, "en")
    assert [*asked, *template.suffix_ids] == wanted
    text = chat_tokenizer.decode(asked)
    assert text.startswith(f"<|im_start|>system\n{system or 'Be good.'}<|im_end|>\n<|im_start|>user")
    assert chat_tokenizer.decode(template.suffix_ids) == "<|im_end|>\n<|im_start|>assistant\n"
    draws = [template.draw_prompt_ids(task, 1, 0, str(i)) for i in range(40)]
    assert asked in draws and all(ids[: len(template.chat.before)] == template.chat.before for ids in draws)


def test_a_prompt_of_ones_own_stands_in_the_chat_and_turns_into_no_control_token(chat_tokenizer):
    own = {"asr": {"en": ["Write <|im_end|> down."]}}
    template = Template(chat_tokenizer, prompts=own, template="chat")
    end = chat_tokenizer.convert_tokens_to_ids("<|im_end|>")
    asked = template.prompt_ids(template.task("asr"), "en")
    assert asked == template.encode_prompt("Write <|im_end|> down.")
    assert chat_tokenizer.decode(asked).endswith("user\nWrite <|im_end|> down.")
    assert asked.count(end) == 1, "the end of the system's turn alone"


def test_an_answer_ends_with_the_end_of_turn(chat_tokenizer):
    template = Template(chat_tokenizer, template="chat")
    end, text_end = chat_tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    target = template.target(template.task("asr"), Utterance("k", "w", "the cat"))
    assert template.end_id == end == target.ids[-1] and target.ids.count(end) == 1
    assert template.decode([*target.ids, *target.ids]) == "the cat"
    assert template.end_ids == {end, text_end}, "an LLM that gives up may say either"
    assert template.decode([*target.ids[:-1], text_end, 5]) == "the cat"
    assert Template(chat_tokenizer).end_ids == {text_end}


def test_the_end_of_turn_is_the_templates_though_the_tokenizer_names_another(chat_tokenizer):
    """As with Gemma, whose tokenizer names the end of a text."""
    other = copy.deepcopy(chat_tokenizer)
    other.eos_token = "<|endoftext|>"
    assert Template(other, template="chat").end_id == other.convert_tokens_to_ids("<|im_end|>")


def test_the_layout_is_saved_with_the_model(chat_tokenizer, tmp_path):
    template = Template(chat_tokenizer, template="chat", system="Be brief.")
    template.save(tmp_path)
    assert json.loads((tmp_path / "text.json").read_text())["template"] == "chat"
    again = Template.load(tmp_path)
    assert (again.template, again.system, again.end_id) == ("chat", "Be brief.", template.end_id)
    assert again.encode_prompt("Go.") == template.encode_prompt("Go.")
    assert again.suffix_ids == template.suffix_ids

    # Folders of before there was a choice are plain.
    settings = json.loads((tmp_path / "text.json").read_text())
    old = {name: value for name, value in settings.items() if name not in ("template", "system")}
    (tmp_path / "text.json").write_text(json.dumps(old))
    assert "template" not in read_settings(tmp_path)
    plain = Template.load(tmp_path)
    assert plain.template == "plain" and plain.suffix_ids == []
    assert plain.encode_prompt("Go.") == plain.encode("Go.")


NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
USER = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"


def test_templates_that_cannot_hold_speech_are_refused_by_name(chat_tokenizer):
    with pytest.raises(ValueError, match="has no chat template; use an Instruct LLM, or template: plain"):
        Template(train_tokenizer(["the cat"], 300), template="chat")
    with pytest.raises(ValueError, match="template plain has no system message; set template: chat"):
        Template(chat_tokenizer, system="Be brief.")
    with pytest.raises(ValueError, match="unknown template 'chatt', did you mean 'chat'"):
        Template(chat_tokenizer, template="chatt")
    bare = changed(chat_tokenizer, NO_SYSTEM + USER)
    assert Template(bare, template="chat").suffix_ids
    with pytest.raises(ValueError, match="refuses messages of system, user: no system; leave system out"):
        Template(bare, template="chat", system="Be brief.")
    twice = changed(chat_tokenizer, "{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}")
    with pytest.raises(ValueError, match="writes a message 2 times instead of once"):
        Template(twice, template="chat")


def test_without_any_end_of_turn_there_is_no_chat(chat_tokenizer):
    bare = changed(chat_tokenizer, "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    assert Template(bare, template="chat").end_id == bare.eos_token_id
    bare.eos_token = None
    with pytest.raises(ValueError, match="puts no control token behind an answer, and there is no eos"):
        Template(bare, template="chat")


def test_pieces_that_are_not_encoded_as_the_whole_are_refused(chat_tokenizer):
    """A tokenizer of words that marks the beginning of a text, and of no other piece."""
    from tokenizers import pre_tokenizers

    other = copy.deepcopy(chat_tokenizer)
    other.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(prepend_scheme="first"), pre_tokenizers.ByteLevel(False)]
    )
    with pytest.raises(ValueError, match="not encoded as the whole is; use template: plain"):
        Template(other, template="chat")


def test_an_llm_that_can_think_aloud_is_asked_not_to(chat_tokenizer):
    """As Qwen3's template writes it: an empty thought stands before the answer."""
    silent = "{% if enable_thinking is defined and not enable_thinking %}(no thought)\n{% endif %}"
    opening = "<|im_start|>assistant\n"
    thinking = changed(chat_tokenizer, chat_tokenizer.chat_template.replace(opening, opening + silent))
    assert thinking.decode(Template(thinking, template="chat").suffix_ids).endswith(f"{opening}(no thought)\n")
