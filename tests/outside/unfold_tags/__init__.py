"""Tags: a tag for each word of a sentence (the chapter's aligned many-to-many)."""
