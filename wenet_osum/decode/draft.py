"""A transcript that was guessed before the model says one, and where in it the answer is."""

from __future__ import annotations

# How many tokens of a draft may be passed over to find its place again after a difference.
REACH = 4


class Draft:
    """The tokens of a drafted transcript, and how far the answer has come in it."""

    def __init__(self, ids: list[int]) -> None:
        self.ids = ids
        # Behind the last token that both have, and what the answer has said since.
        self.place = 0
        self.others = 0

    def follow(self, token: int) -> None:
        """Go on behind ``token``, which the answer said."""
        expected = self.place + self.others
        if self.ids[expected : expected + 1] == [token]:
            found = expected
        else:
            # The draft may have tokens that the answer has not, or lack some.
            near = self.ids[self.place : expected + REACH]
            if token not in near:
                self.others += 1
                return
            found = self.place + near.index(token)
        self.place = found + 1
        self.others = 0

    def rest(self) -> list[int]:
        """Return the tokens that the answer may say next: each other one replaced one of these."""
        return self.ids[self.place + self.others :]
