"""Forms in which corpora come and go, a file each, found by name: ``read`` and ``write``.

``read(path, dropped, audio_dir)`` yields utterances and counts what it leaves out; formats that
hold audio inside put it into ``audio_dir``. ``write(path, utterances, lost)`` returns the number
written and counts, by reason, utterances and fields that the format has no place for.
"""
