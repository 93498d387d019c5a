"""The text LLM's tasks: repeat the words, then reply; it learns to."""

import torch

from wenet_osum.models.small import SmallLlm, small_llm
from wenet_osum.text.train_tokenizer import train_tokenizer
from wenet_osum.train.text_lm import as_text_tasks, train_text_lm

LINES = ["the red cat", "a dog runs", "一二三", "what now<开始回答>nothing"] * 8


def test_words_stand_twice_token_by_token_and_the_reply_once():
    tokenizer = train_tokenizer(LINES, 900)
    asked = as_text_tasks(LINES, tokenizer, seed=1)
    assert asked == as_text_tasks(LINES, tokenizer, seed=1)
    red = tokenizer("the red cat")["input_ids"]
    assert asked[0][-1] == tokenizer.eos_token_id and asked[0][-1 - 2 * len(red) : -1] == red + red
    assert tokenizer.decode(asked[3][:-1]).endswith("what nowwhat now<开始回答>nothing")
    shuffled = sorted(asked[1][-1 - 2 * 3 : -1 - 3])
    assert shuffled == sorted(asked[1][-1 - 3 : -1]), "words out of order are repeated in that order"


def test_training_lowers_the_loss():
    torch.manual_seed(0)
    tokenizer = train_tokenizer(LINES, 600)
    sizes = SmallLlm(width=32, layers=1, heads=2, kv_heads=1, ffn=32, batch=8, epochs=1)
    lines = as_text_tasks(LINES, tokenizer, seed=1)
    first = train_text_lm(small_llm(sizes, tokenizer), lines, sizes, seed=1)
    sizes.epochs = 12
    assert train_text_lm(small_llm(sizes, tokenizer), lines, sizes, seed=1) < first - 1.0
