"""What MkDocs is told beyond mkdocs.yml.

The start page is the README, notebooks are pages, the gallery is made of the zoo's folders, files of the
repository that pages link to (cards, pictures, scripts) come along, and examples in docstrings are code.
"""

import json
import posixpath
import re
from pathlib import Path

import griffe
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"""(?<=\]\()[^)\s#]+|(?<=<img src=")[^"]+""")


def on_files(files, config):
    """Adds the pages that are made of something else, and then whatever they and their like link to."""
    files.append(File.generated(config, "index.md", abs_src_path=str(ROOT / "README.md")))
    files.append(File.generated(config, "gallery.md", content=gallery()))
    for path in sorted(ROOT.glob("docs/tutorials/*.ipynb")):
        files.append(File.generated(config, f"tutorials/{path.stem}.md", content=notebook(path)))
    pages = list(files.documentation_pages())
    while pages:
        page = pages.pop()
        for target in LINK.findall(page.content_string):
            place = _in_repository(page.src_uri, target)
            if place is None or files.get_file_from_path(_on_site(place)):
                continue
            file = File.generated(config, _on_site(place), abs_src_path=str(ROOT / place))
            files.append(file)
            if file.is_documentation_page():
                pages.append(file)
    return files


def on_page_markdown(markdown, page, config, files):
    """Links between docs/ and the rest of the repository: on the site docs/ lies at its root."""

    def on_site(match):
        place = _in_repository(page.file.src_uri, match[0])
        if place is None:
            return match[0]
        return posixpath.relpath(_on_site(place), posixpath.dirname(page.file.src_uri) or ".")

    return LINK.sub(on_site, markdown)


def _in_repository(page, target):
    """The path in the repository of what a page of the site links to, or None where that is no file of it."""
    written = (f"docs/{page}", f"docs/{page.removesuffix('.md')}.ipynb")
    other = "README.md" if page == "index.md" else page
    source = next((path for path in written if (ROOT / path).is_file()), other)
    place = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    return place if (ROOT / place).is_file() else None


def _on_site(place):
    if place == "README.md":
        return "index.md"
    return re.sub(r"\.ipynb$", ".md", place.removeprefix("docs/"))  # A notebook's page.


def gallery():
    """Every picture of the zoo's trained models, with its caption and a link to the card, as Markdown."""
    lines = ["# Gallery", "", "What each trained model of the zoo draws and reconstructs, none left out."]
    for path in sorted(ROOT.glob("zoo/*/metadata.json")):
        metadata = json.loads(path.read_text(encoding="utf-8"))
        if not metadata["pretrained"]:
            continue
        name = path.parent.name
        lines += ["", f"## {name}", "", f"{metadata['description']} [Its card](zoo/{name}/README.md)."]
        for file, caption in metadata["pictures"].items():
            lines += ["", f"![{name}](zoo/{name}/{file})", "", f"*{caption}*"]
    return "\n".join(lines) + "\n"


def notebook(path):
    """A notebook as Markdown, with the outputs that it was executed with."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
        for output in cell.get("outputs", ()):
            shown = output.get("data", {})
            if "image/png" in shown:
                data = "".join(shown["image/png"]).replace("\n", "")
                parts.append(f'<img alt="what the code above draws" src="data:image/png;base64,{data}">')
            elif output.get("name") != "stderr":
                said = "".join(output.get("text") or shown["text/plain"])
                parts.append(f"```text\n{said}\n```")
    # An address, which no link checker takes for the page itself.
    return "\n\n".join(parts) + f'\n\n<a href="../{path.name}">This page as a notebook</a>\n'


class Examples(griffe.Extension):
    """Google's section for code is called "Examples"; the docstrings say "Example", since there is one."""

    def on_object(self, *, obj, **kwargs):
        if obj.docstring:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.M)
