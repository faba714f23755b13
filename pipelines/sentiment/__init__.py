"""Sentiment: a text in, a class out (the chapter's many-to-one)."""
