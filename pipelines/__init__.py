"""Task pipelines: config → data → model → training → evaluation → export.

Nothing downstream is imported upstream. Each task is one package (``pipelines.sentiment``)
that holds only what is its own; everything else is shared by all tasks.
"""
