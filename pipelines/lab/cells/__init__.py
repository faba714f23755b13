"""A page for each cell: equations, a drawing, and an example worked out by hand.

``python -m pipelines.lab.cells`` writes the pages to ``docs/cells/``.
"""
