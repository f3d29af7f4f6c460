# SPDX-License-Identifier: BSD-3-Clause

"""The pages of ``docsrc``, which are Markdown, as reStructuredText.

Only what pages use is translated. Anything else is an error, so that no page loses a
part without a word.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Iterator
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode
from mdit_py_plugins.colon_fence import colon_fence_plugin

FOLDER = "docsrc/tutorials/extensibility/plugins/annotation"
API = "docsrc/py_api/annotation.rst"

# Pages that stay here. They are about this repository, or lists of other pages.
LEFT_OUT = frozenset(
    {"compatibility", "guide", "index", "performance", "reference", "upstream"}
    | {"versions"}
)

# Sections that are about the overlay.
SECTIONS_LEFT_OUT = {"getting_started": ("install",)}

INDEX = """\
.. _annotation-index:

Kernels from launch functions
=============================

One call puts a GPU kernel into a TensorRT engine. You pass the Python function that
launches the kernel. The kernel is compiled ahead of time, TensorRT's autotuner times
each of its configs as a tactic, and the engine runs without Python.

:ref:`The reference <annotation-api>` has each name.

.. toctree::
   :maxdepth: 1

"""

PY = Path(__file__).resolve().parents[2] / "py"

_UNDERLINES = "=-^~"
_ADMONITIONS = ("note", "tip", "warning", "important")
_MARKDOWN = MarkdownIt("commonmark").enable("table").use(colon_fence_plugin)


def pages(docsrc: Path) -> dict[str, bytes]:
    """Path in the checkout -> content, of pages and their pictures."""
    names = [name for name in _in_order(docsrc, "index") if name not in LEFT_OUT]
    sources = {name: docsrc / f"{name}.md" for name in dict.fromkeys(names)}
    anchors = _anchors([*sources.values()])
    made = {
        API if name == "api" else f"{FOLDER}/{name}.rst": as_rst(source, anchors)
        for name, source in sources.items()
    }
    guides = (f"   {name}\n" for name in sources if name != "api")
    made[f"{FOLDER}/index.rst"] = INDEX + "".join(guides)
    pictures = re.findall(
        r"^\.\. image:: (\S+)", "\n".join(made.values()), re.MULTILINE
    )
    found = {path: text.encode() for path, text in made.items()}
    found |= {f"{FOLDER}/{name}": (docsrc / name).read_bytes() for name in pictures}
    return found


def _in_order(docsrc: Path, name: str) -> Iterator[str]:
    """A page, and those in its tables of contents."""
    yield name
    text = (docsrc / f"{name}.md").read_text(encoding="utf-8")
    for table in re.findall(
        r"^```\{toctree\}\n(.*?)^```", text, re.DOTALL | re.MULTILINE
    ):
        for entry in table.splitlines():
            if (docsrc / f"{entry}.md").is_file():
                yield from _in_order(docsrc, entry)


def _anchors(paths: Collection[Path]) -> frozenset[str]:
    """``page#section`` of the sections that are here and that some page links to."""
    linked, here = set(), set()
    for path in paths:
        links = re.findall(r"\]\((?:(\w+)\.md)?#([\w-]+)\)", path.read_text())
        linked |= {f"{page or path.stem}#{section}" for page, section in links}
        headings = (node for node in _kept(path) if node.type == "heading")
        here |= {f"{path.stem}#{_section(node)}" for node in headings}
    return frozenset(linked & here)


def _kept(path: Path) -> Iterator[SyntaxTreeNode]:
    """The blocks of a page, without sections that are left out."""
    hidden = 0  # level of the section that is left out
    tree = SyntaxTreeNode(_MARKDOWN.parse(path.read_text(encoding="utf-8")))
    for node in tree.children:
        if node.type == "heading":
            level = int(node.tag[1])
            if not hidden or level <= hidden:
                is_left_out = _section(node) in SECTIONS_LEFT_OUT.get(path.stem, ())
                hidden = level if is_left_out else 0
        if not hidden:
            yield node


def _section(heading: SyntaxTreeNode) -> str:
    """What links name a section by."""
    words = "".join(child.content for child in heading.children).lower()
    return re.sub(r"[^\w\- ]", "", words).replace(" ", "-")


def as_rst(path: Path, anchors: frozenset[str]) -> str:
    """The page at ``path``, with labels at the sections in ``anchors``."""
    page = _Page(path.stem, anchors)
    # Upstream's pages are about C++ if they do not say otherwise.
    head = ".. default-domain:: py\n.. highlight:: python"
    blocks = [head, f".. _{label(path.stem)}:", *map(page.block, _kept(path))]
    return "\n\n".join(filter(None, blocks)) + "\n"


def label(page: str, section: str = "") -> str:
    """The label of a page, or of a section."""
    return f"annotation-{page}" + (f"-{section}" if section else "")


class _Page:
    def __init__(self, name: str, anchors: frozenset[str]) -> None:
        self.name = name
        self.anchors = anchors
        self.module = ""  # that entries of a summary are in

    # --- Blocks -----------------------------------------------------------------------

    def block(self, node: SyntaxTreeNode) -> str:
        translate = getattr(self, f"_{node.type}", None)
        if translate is None:
            raise SystemExit(f"docsrc/{self.name}.md: no translation of {node.type}.")
        text: str = translate(node)
        return text

    def _blocks(self, node: SyntaxTreeNode) -> str:
        # Items of a tight list hold paragraphs, too; lists follow an empty line.
        return "\n\n".join(map(self.block, node.children))

    def _heading(self, node: SyntaxTreeNode) -> str:
        title = self._inlines(node)
        heading = f"{title}\n{_UNDERLINES[int(node.tag[1]) - 1] * len(title)}"
        section = _section(node)
        if f"{self.name}#{section}" in self.anchors:
            return f".. _{label(self.name, section)}:\n\n{heading}"
        return heading

    def _paragraph(self, node: SyntaxTreeNode) -> str:
        (inline,) = node.children
        if len(inline.children) == 1 and inline.children[0].type == "image":
            image = inline.children[0]
            return f".. image:: {image.attrs['src']}\n   :alt: {image.content}"
        return self._inlines(node)

    def _bullet_list(self, node: SyntaxTreeNode) -> str:
        return "\n".join(_hanging("- ", self._blocks(item)) for item in node.children)

    def _ordered_list(self, node: SyntaxTreeNode) -> str:
        items = enumerate(node.children, 1)
        return "\n".join(_hanging(f"{n}. ", self._blocks(item)) for n, item in items)

    def _fence(self, node: SyntaxTreeNode) -> str:
        body = node.content.rstrip()
        if (directive := re.fullmatch(r"\{([\w-]+)\} ?(.*)", node.info)) is None:
            return f".. code-block:: {node.info or 'text'}\n\n{_indented(body)}"
        name, argument = directive.groups()
        if name == "eval-rst":
            return self._entries(body)
        options = re.match(r"(:.+\n?)*", body)
        assert options is not None
        head = "\n".join([f".. {name}:: {argument}".rstrip(), _indented(options[0])])
        rest = body[options.end() :].strip("\n")
        if name in _ADMONITIONS:
            rest = self._blocks(SyntaxTreeNode(_MARKDOWN.parse(rest)))
        return "\n\n".join(filter(None, (head.rstrip(), _indented(rest))))

    def _entries(self, text: str) -> str:
        """``text`` with the entries of a summary in place of pages for each.

        Upstream's own primary domain is C++, in which generated pages fail.
        """
        lines = []
        for line in text.splitlines():
            if module := re.match(r"\.\. currentmodule:: (\S+)", line):
                self.module = module[1]
            if entry := re.fullmatch(r"   ~?(\w[\w.]*)", line):
                name = f"{self.module}.{entry[1]}"
                file = PY / f"{name.replace('.', '/')}.py"
                is_class = entry[1].rpartition(".")[2][0].isupper()
                kind = "class" if is_class else "function"
                kind = "module" if file.is_file() else kind
                members = "" if kind == "function" else "\n   :members:"
                lines.append(f".. auto{kind}:: {name}{members}\n")
            elif not re.match(r"\.\. autosummary|   :(toctree|nosignatures)", line):
                lines.append(line)
        return "\n".join(lines).strip()

    _colon_fence = _fence

    def _table(self, node: SyntaxTreeNode) -> str:
        rows = [row for part in node.children for row in part.children]
        lines = []
        for row in rows:
            cells = (_hanging("- ", self._inlines(cell)) for cell in row.children)
            lines.append(_hanging("* ", "\n".join(cells)))
        has_head = any(cell.children[0].content for cell in rows[0].children)
        head = ".. list-table::" + "\n   :header-rows: 1" * has_head
        return f"{head}\n\n{_indented(chr(10).join(lines if has_head else lines[1:]))}"

    # --- Inlines ----------------------------------------------------------------------

    def _inlines(self, node: SyntaxTreeNode) -> str:
        parts = [
            part
            for inline in node.children
            for child in inline.children or ()
            for part in self._inline(child)
        ]
        text = ""
        for part, is_markup in parts:
            # Markup must not touch a word, nor other markup.
            is_free = not text or re.search(r"[\s(\[{<'\"/:-]$", text)
            touches = text.endswith(("`", "*", "_")) and re.match(r"[\w`*:(]", part)
            if touches or (is_markup and not is_free):
                text += "\\ "
            text += part
        return text

    def _inline(self, node: SyntaxTreeNode) -> list[tuple[str, bool]]:
        """Its texts, each with whether it is markup."""
        content = node.content
        match node.type:
            case "text":
                return [(re.sub(r"([\\`*|]|_\b)", r"\\\1", content), False)]
            case "softbreak":
                return [("\n", False)]
            case "code_inline":
                return [(f"``{content}``", True)]
            case "strong" | "em":
                mark = "**" if node.type == "strong" else "*"
                return [(f"{mark}{_plain(node)}{mark}", True)]
            case "link":
                return [self._link(_plain(node), str(node.attrs["href"]))]
        raise SystemExit(f"docsrc/{self.name}.md: no translation of {node.type}.")

    def _link(self, text: str, target: str) -> tuple[str, bool]:
        if re.match(r"https?://", target):
            return f"`{text} <{target}>`__", True
        if example := re.search(r"(custom_plugin_\w+)\.\w+$", target):
            return f":ref:`{text} <{example[1]}>`", True
        match = re.fullmatch(r"(?:(\w+)\.md)?(?:#([\w-]+))?", target)
        if match is None:
            raise SystemExit(f"docsrc/{self.name}.md: {target}: neither page nor URL.")
        page, section = match[1] or self.name, match[2] or ""
        if page in LEFT_OUT or (section and f"{page}#{section}" not in self.anchors):
            return text, False
        return f":ref:`{text} <{label(page, section)}>`", True


def _plain(node: SyntaxTreeNode) -> str:
    """The text in markup, which holds no other markup in reStructuredText."""
    return "".join(
        " " if child.type == "softbreak" else child.content or _plain(child)
        for child in node.children
    )


def _indented(text: str) -> str:
    return textwrap.indent(text, "   ")


def _hanging(mark: str, text: str) -> str:
    """``text`` after ``mark``, its further lines below its first."""
    return mark + textwrap.indent(text, " " * len(mark)).lstrip()
