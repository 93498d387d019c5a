"""CTC prefix scores of an LLM's tokens, for a CTC that has some of them as classes.

Such a CTC cuts words into other pieces than the LLM, and half a word often into others than the
whole: " look" may be one class while " loo" takes two. So the two are compared by characters.

Words that are complete are cut as training cuts them (text/ctc_classes.py), which gives their
classes. An unfinished word w may become any word that begins so. What CTC reads then begins with
some of the classes a₁ … a_n that write w, and goes on with a class that begins with what is left
of w. The probability of a text g w, over the CTC prefix probability Ψ of classes, is

    P(g w) = Σ_j Σ_c Ψ(g a₁ … a_j c)        for all c that begin with the characters of a_j+1 … a_n

Letters: C classes without the blank, K candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wenet_osum.decode.ctc_prefix import LOG_ZERO, CTCPrefix, Emissions, log_of_rest
from wenet_osum.text.ctc_classes import ClassEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Classes at the end of an unfinished word that another class may stand for.
OPEN = 3
# Classes of an unfinished word, above which the first are settled: where words have no spaces.
LONGEST = 8
# Half a character, and what is none.
UNKNOWN = "\N{REPLACEMENT CHARACTER}"
# Words, of each thing that is known of them.
REMEMBERED = 10_000


class Pieces:
    """The classes ``ids`` of a CTC, as texts that begin, end and make up words.

    All texts are spelled as the vocabulary spells them ("Ġthe" is " the"), byte by byte.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> None:
        self.tokenizer = tokenizer
        self.encoder = ClassEncoder(tokenizer, ids)
        self.texts: list[str] = tokenizer.convert_ids_to_tokens(list(ids))
        cutting = self.encoder.tokenizer
        backend = cutting.backend_tokenizer
        self.merging = backend.model
        self.splitting = backend.pre_tokenizer
        self.decoding = backend.decoder
        # The same words come again and again.
        remember = lru_cache(REMEMBERED)
        self.words = remember(self._words)
        self.classes = remember(self._classes)
        self.beginning = remember(self._beginning)

    def spelled(self, token: int) -> str:
        """Return the text of one of the LLM's tokens.

        Tables of embeddings have rows that are no token: these are a character of no class.
        """
        text = self.tokenizer.convert_ids_to_tokens(token)
        return UNKNOWN if text is None else text

    def text(self, classes: Sequence[int]) -> str:
        """Return the text that classes write."""
        texts = [self.texts[number] for number in classes]
        return "".join(texts)

    def _words(self, text: str) -> list[str]:
        """Cut a text into the words that no class crosses."""
        if self.splitting is None:
            return [text]
        plain = self.decoding.decode([text])
        # Half a character cannot be cut yet.
        if UNKNOWN in plain:
            return [text]
        cut = self.splitting.pre_tokenize_str(plain)
        words = [word for word, _ in cut]
        return words or [text]

    def _classes(self, word: str) -> list[int] | None:
        """Return the classes that training writes a word with; None where none can."""
        merged = self.merging.tokenize(word)
        written = "".join(piece.value for piece in merged)
        if written != word:
            return None
        tokens = [piece.id for piece in merged]
        return self.encoder.classes(tokens)

    def _beginning(self, text: str) -> Tensor:
        """Return the classes (n,) whose texts begin with ``text``."""
        found = []
        for number, own in enumerate(self.texts):
            if own.startswith(text):
                found.append(number)
        return torch.tensor(found, dtype=torch.long)


class Node:
    """A CTC prefix, and those that are longer; each is computed when first asked for.

    ``every`` (C,) are the classes without the blank.
    """

    def __init__(self, prefix: CTCPrefix, every: Tensor) -> None:
        self.prefix = prefix
        self.every = every
        self.longer: dict[int, Node] = {}

    @cached_property
    def log_p_longer(self) -> Tensor:
        """log Ψ (C,) of the prefix with each class behind it, on the CPU."""
        if self.prefix.log_p_prefix == LOG_ZERO:
            # Longer than the speech has states for: nothing follows what cannot be.
            return torch.full((len(self.every),), LOG_ZERO)
        gains = self.prefix.token_gains(self.every)
        logs = gains + self.prefix.log_p_prefix
        return logs.cpu()

    def walk(self, classes: Sequence[int]) -> Node:
        """Return the node that ``classes`` lead to."""
        node = self
        for number in classes:
            if number not in node.longer:
                prefix = node.prefix.extended(number)
                node.longer[number] = Node(prefix, self.every)
            node = node.longer[number]
        return node


@dataclass(frozen=True)
class PiecePrefix:
    """What the LLM has written of a transcript: words that are settled, and the ``word`` behind
    them, which may go on.

    It answers what CTCPrefix answers, for the LLM's tokens.
    """

    pieces: Pieces
    # Behind the settled words.
    node: Node
    word: str = ""
    log_p_prefix: float = 0.0

    @classmethod
    def empty(cls, pieces: Pieces, emissions: Emissions) -> PiecePrefix:
        """Return the state before the first token."""
        device = emissions.states.device
        every = torch.arange(len(pieces.texts), device=device)
        known = emissions.of_few()
        prefix = CTCPrefix.empty(known)
        return cls(pieces, Node(prefix, every))

    def token_gains(self, tokens: Tensor) -> Tensor:
        """Return how much each next token would change the log-probability of the text.

        Takes ``tokens`` (K,) and returns (K,).
        """
        gains = []
        for token in tokens.tolist():
            node, word = self._with(token)
            after = self._log_p(node, word)
            gains.append(after - self.log_p_prefix)
        return torch.tensor(gains, dtype=torch.float64, device=tokens.device)

    def _with(self, token: int) -> tuple[Node | None, str]:
        """Return the node behind the settled words, and the last word, with ``token`` at the end.

        None: a word has a character that no class can write.
        """
        text = self.word + self.pieces.spelled(token)
        *settled, word = self.pieces.words(text)
        node: Node | None = self.node
        for complete in settled:
            node = self._behind(node, complete)
        return node, word

    def _behind(self, node: Node | None, word: str) -> Node | None:
        """Return the node behind a complete word."""
        classes = self.pieces.classes(word)
        if node is None or classes is None:
            return None
        return node.walk(classes)

    def _log_p(self, node: Node | None, word: str) -> float:
        """Return log P of the text that goes on with an unfinished word behind a node."""
        classes = self.pieces.classes(word)
        if node is None or classes is None:
            return LOG_ZERO
        if not classes:
            return node.prefix.log_p_prefix

        # The classes that are settled whatever comes, then each way in which the word may go on.
        count = len(classes)
        certain = max(0, count - OPEN)
        logs = []
        for place in range(certain, count):
            here = node.walk(classes[:place])
            rest = self.pieces.text(classes[place:])
            going_on = self.pieces.beginning(rest)
            logs.append(here.log_p_longer[going_on])
        ways = torch.cat(logs)
        return float(ways.logsumexp(0))

    def end_gain(self) -> float:
        """Return the log-probability that the transcript is complete, given the text."""
        whole = self._behind(self.node, self.word)
        if whole is None or whole.prefix.log_p_prefix == LOG_ZERO:
            return LOG_ZERO
        prefix = whole.prefix
        ended = prefix.log_p_prefix + prefix.end_gain()
        return min(ended - self.log_p_prefix, 0.0)

    def more_gain(self) -> float:
        """Return the log-probability that another token follows, given the text."""
        return log_of_rest(self.end_gain())

    def next_start(self) -> int:
        """Return the state in which the next word most likely begins."""
        return self._whole().next_start()

    def last_state(self) -> int:
        """Return the state in which the last class is most likely read."""
        return self._whole().last_state()

    def _whole(self) -> CTCPrefix:
        """Return the prefix of all that is written, or all that classes can write."""
        whole = self._behind(self.node, self.word)
        node = whole or self.node
        return node.prefix

    def extended(self, token: int) -> PiecePrefix:
        """Return the text with ``token`` at its end."""
        node, word = self._with(token)
        log_p = self._log_p(node, word)
        if node is None:
            return PiecePrefix(self.pieces, self.node, word, LOG_ZERO)

        classes = self.pieces.classes(word) or []
        if len(classes) > LONGEST:
            settled = classes[:-OPEN]
            node = node.walk(settled)
            left = classes[-OPEN:]
            word = self.pieces.text(left)
        return PiecePrefix(self.pieces, node, word, log_p)
