"""A trained model for others: its folder for model hubs, its card, licenses, the LLM alone."""
