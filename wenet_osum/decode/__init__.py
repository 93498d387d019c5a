"""From features to answers: batched decoding, labels held to their sets, long audio, result files."""
