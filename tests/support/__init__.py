"""What tests share."""

from pathlib import Path

#: The project's folder.
ROOT = Path(__file__).parents[2]
