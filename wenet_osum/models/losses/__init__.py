"""Losses beside the cross-entropy of the answers; a file here is a name for ``model.losses`` of a
training yaml.

A file holds ``class Loss`` with

    kinds        model kinds it is for, e.g. ("osum", "whisper")
    needs_logits whether it needs classes of CTC: kind osum then needs a blank, kind whisper gets a
                 CTC head
    __init__(template, **keys)
                 ``keys`` are those of the yaml's entry, without name and weight
    targets(utterance)
                 {name: tensor}: what the loss has to know of an utterance, its first dimension
                 counting anything. The dataset joins the tensors of a batch end to end, with their
                 lengths. These, and what is named ``…_times``, stay on the CPU in training
    __call__(speech, targets)
                 UtteranceLosses of a batch
    needs_answers
                 may be left out: True lets ``__call__`` have the LLM's answers (models/answers.py)
                 as a third argument
    has_target(utterance)
                 may be left out: False for an utterance that it can learn nothing from, such as one
                 without a transcript
    heard_fields may be left out; set to the label fields that the adapter has queries for
    kept         may be left out: {key: value} that config.json is to keep in the place of the
                 yaml's, such as the contents of a file that a key names

so that the model, the dataset and the loop know no loss by name (models/objective.py).
"""
