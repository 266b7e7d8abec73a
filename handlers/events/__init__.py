"""Translations of events into requests: what each source says, without a word about where it runs."""
