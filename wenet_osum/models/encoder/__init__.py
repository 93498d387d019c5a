"""Speech encoders, a file each; the file is named after the ``model_type`` of the encoder's
configuration.

A file holds ``class Encoder`` and ``read(source, dtype)``, which takes one from a folder or hub
name.

    Encoder(config)(features, lengths) -> (states, lengths)
    encoder.width                    channels of a state
    encoder.mels                     mel bins of the features it takes
    encoder.state_s                  seconds of speech in one state
    encoder.output_lengths(lengths)  states of utterances of that many frames
    encoder.min_frames               frames it computes of an utterance at least; 0 when left out
    encoder.fixed_parameters         names of parameters that never train; may be left out
    encoder.multiple                 with ``compile`` the number of states that its layers see is
                                     rounded up to a multiple of it; may be left out
    set_conf(config, **encoder_conf) changes settings of its configuration; may be left out (none)
    without_weights(source)          an encoder on the meta device and where its weights lie, or
                                     None (models/unread.py); may be left out: it is read whole

An encoder that can be run in two parts, so that the states between them can be kept on disk
(``features: encoded``, models/split.py), also has these; they may be left out all together:

    encoder.depth                            number of layers
    encoder.lower(features, lengths, after)  (states, lengths) after so many layers
    encoder.upper(states, lengths, after)    the rest; upper(*lower(…, k), k) is what the encoder
                                             gives
    encoder.lower_modules(after)             name → module of what ``lower`` runs
    encoder.lower_settings(after)            settings that its states depend on, beside the weights
    encoder.kept_lengths(lengths, after)     states to keep of utterances of that many states

``features`` are log-mel (B, T, mels) at 100 frames per second, ``lengths`` (B,) count frames, then
states. A configuration class that transformers does not know is registered in the file itself
(``AutoConfig.register``): the file is imported before a model's configuration is read.
"""
