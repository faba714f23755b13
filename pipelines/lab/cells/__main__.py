"""Write the pages and drawings of the cells to ``docs/cells/``."""

from pipelines.engine.core.files import write_text
from pipelines.lab.cells.pages import FOLDER, files

if __name__ == "__main__":
    for name, text in files().items():
        write_text(FOLDER / name, text)
