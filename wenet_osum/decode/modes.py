"""The modes of decoding, with WeNet's names."""

# The LLM, or in phase 1 Whisper's decoder, finds the transcript or chooses among those of CTC.
ATTENTION, ATTENTION_RESCORING = "attention", "attention_rescoring"
# CTC finds it alone.
CTC_GREEDY_SEARCH, CTC_PREFIX_BEAM_SEARCH = "ctc_greedy_search", "ctc_prefix_beam_search"
CTC_MODES = (CTC_GREEDY_SEARCH, CTC_PREFIX_BEAM_SEARCH)

MODES = (ATTENTION, ATTENTION_RESCORING, *CTC_MODES)
