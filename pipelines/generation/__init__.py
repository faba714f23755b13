"""Generation: a text goes on (the chapter's one-to-one)."""
