"""The tiny model of the tests of decoding, as a folder."""

from ..decode.conftest import chat_dir, chat_parts, model_dir, parts

__all__ = ["chat_dir", "chat_parts", "model_dir", "parts"]
