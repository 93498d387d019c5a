"""Formats of files that say when words were spoken, one format per module.

``read(data)`` gives recording → words with times; a recording without a name has the key None.
A module also has ``SUFFIXES``, the file names it is looked for under. Words come as the file has
them, silences and all; ``match_words.py`` matches them with the transcript.
"""
