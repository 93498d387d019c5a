"""Speech encoders, a file each.

`Encoder(config)(features, lengths) -> (states, lengths)`; `read(source, dtype)` takes one from a folder or hub name.
"""
