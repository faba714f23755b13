"""Translation: a text in, another text out, of any lengths."""
