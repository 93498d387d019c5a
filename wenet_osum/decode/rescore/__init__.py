"""Second opinions on the next token, or the next label, beside the LLM's.

A file here is a name for ``--rescore NAME=WEIGHT``. It holds ``class Rescorer`` with

    losses      names of the losses (models/losses) that a model must have been trained with
    needs       names of other rescorers whose state it reads; they are there also with weight 0
    __init__(model, template, weights)
                is called once per batch; ``weights`` are all that were asked for, by name
    begin(states, front)
                returns a State for the speech embeddings (S, H) of one utterance, and those
                (F, H) that its label queries put in front of them, none or F

and a State, which never changes, has

    applies(answer_state, states)
                returns whether it has a say where the answer stands (decode/constrain.py)
    advance(answer_state, token)
                returns the State after ``token`` has been proposed to ``answer_state``, which
                still stands before it
    change(answer_state, logs, tokens, states)
                returns (K,) float64: what to add to the LLM's log-probabilities ``logs`` (K,) of
                the candidates ``tokens`` (K,)

A State that has a say in the choice of labels also has

    change_labels(field, logs)
                returns what to add to the LLM's log-probabilities ``logs`` of the labels of a
                field, both by label

``states`` are those of all rescorers by name. So the search knows no rescorer by name
(decode/joint.py).
"""
