"""Executes the tutorials anew, in place: each in a process and an empty folder of its own.

    make tutorials                                            # all of them
    python docs/tutorials/execute.py docs/tutorials/serve.ipynb

It needs nbclient and ipykernel, and what the notebooks import. A notebook that fails stays as it was.
"""

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent


def main(paths):
    for path in paths or sorted(HERE.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        with tempfile.TemporaryDirectory() as folder:
            place = {"metadata": {"path": folder}}
            NotebookClient(notebook, timeout=None, record_timing=False, resources=place).execute()
        for cell in notebook.cells:
            if cell.cell_type == "code":  # Progress and warnings are no part of a page, and PNG is enough.
                cell.outputs = [x for x in cell.outputs if x.get("name") != "stderr"]
                for output in cell.outputs:
                    output.get("data", {}).pop("image/jpeg", None)
                    if "text" in output:  # The folder is gone.
                        output["text"] = output["text"].replace(f"{folder}/", "")
        notebook.metadata.language_info = {"name": "python"}
        nbformat.write(notebook, path)
        print(f"{path}: executed, {Path(path).stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
