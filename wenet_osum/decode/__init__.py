"""From features to answers.

Batched decoding, labels held to their sets, long audio, result files.
"""
