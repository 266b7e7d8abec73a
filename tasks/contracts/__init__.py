"""The nouns: what travels, what is stored, what came out."""
