"""Speech encoders, a file each.

`Encoder(config)(features, lengths) -> (states, lengths)`; `read(source, dtype)` takes one from a
folder or hub name; `set_conf(config, **encoder_conf)` changes its settings; `Encoder.min_frames`
are the frames it computes of an utterance at least.
"""
