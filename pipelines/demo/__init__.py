"""A web page with a tab for each task."""
