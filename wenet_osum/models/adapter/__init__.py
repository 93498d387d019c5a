"""Adapters from encoder states to LLM embeddings, a file each.

    Adapter(input_width, output_width, **conf)(states, lengths) -> (embeddings, lengths)
    adapter.output_lengths(lengths)  embeddings that so many states become, or at most become
    adapter.stride                   states per embedding; None where it depends on what is said
    Adapter.complete_conf(input_width, output_width, conf)
                                     chooses for a new model what its ``adapter_conf`` leaves open;
                                     the choice is saved. A static method that may be left out.
    adapter.fit_state(state)         rewrites the weights of an adapter with another
                                     ``adapter_conf``, taken over from its folder, to fit; may be
                                     left out.
    adapter.initialize(std)          gives a new adapter its weights, so that its embeddings have
                                     the standard deviation ``std`` of the LLM's; may be left out.

An adapter that keeps fewer embeddings by what CTC hears in them has beside that

    adapter.shrinker(embeddings, lengths, labels, blank, whole) -> (embeddings, lengths)
                                     a module: ``labels`` (B, S) are the CTC classes of embeddings,
                                     ``whole`` (B,) those utterances that are to stay as they are
    adapter.unshrunk                 tasks whose utterances do

An adapter may put embeddings of label fields in front of those of the speech. Then it has

    adapter.label_queries            a module (models/label_queries.py) whose ``names`` say which;
                                     None: there are none

What it gives, its lengths and ``output_lengths`` count them; ``shrinker`` is not given them.

With a shrinker, ``stride`` and ``output_lengths`` are of the embeddings that CTC reads, the most
that remain.

The plan of an epoch, the cost estimate and CTC ask the adapter: nobody else knows a rate.
"""
