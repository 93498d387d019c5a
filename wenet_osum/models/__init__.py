"""The models: `osum.py` (encoder → adapter → LLM) and `whisper.py` (phase 1), what they are made
of, and what of them trains."""
