"""Pictures and pages inside a notebook, where no other file can be opened."""

import html
import sys
from collections.abc import Sequence
from pathlib import Path

MAX_INLINE_BYTES = 30e6
"""Size of a page up to which it is shown inside the notebook."""


def show_figures(paths: Sequence[Path], width: int = 900) -> None:
    """Shows pictures in the notebook, each under its folder and name."""
    from IPython.display import Image, Markdown, display

    for path in paths:
        display(Markdown(f"**{path.parent.parent.name}** {path.name}"))
        display(Image(filename=str(path), width=width))


def show_page(path: Path, height: int = 760) -> None:
    """Shows a self-contained page in a frame of the notebook; a large one is only named."""
    from IPython.display import HTML, display

    if path.stat().st_size > MAX_INLINE_BYTES:
        size = path.stat().st_size / 1e6
        sys.stdout.write(f"it has {size:.0f} MB: open it from the notebook's output\n")
        return
    display(HTML(framed_page(path.read_text(encoding="utf-8"), height)))


def framed_page(page: str, height: int) -> str:
    """A page inside a frame that needs no other file.

    The page's links to its own places lead there instead of to the notebook's address.
    """
    page = page.replace("<head>", '<head><base href="about:srcdoc">', 1)
    style = f"width:100%;height:{height}px;border:1px solid #ccc"
    return f'<div><iframe srcdoc="{html.escape(page)}" style="{style}"></iframe></div>'
