"""Speech encoders, a file each; the file is named after the ``model_type`` of the encoder's configuration.

A file holds ``class Encoder`` and ``read(source, dtype)``, which takes one from a folder or hub name.

    Encoder(config)(features, lengths) -> (states, lengths)
    encoder.width                    channels of a state
    encoder.mels                     mel bins of the features it takes
    encoder.state_s                  seconds of speech in one state
    encoder.output_lengths(lengths)  states of utterances of that many frames
    encoder.min_frames               frames it computes of an utterance at least; may be left out (0)
    set_conf(config, **encoder_conf) changes settings of its configuration; may be left out (none)

``features`` are log-mel (B, T, mels) at 100 frames per second, ``lengths`` (B,) count frames, then states.
A configuration class that transformers does not know is registered in the file itself
(``AutoConfig.register``): the file is imported before a model's configuration is read.
"""
