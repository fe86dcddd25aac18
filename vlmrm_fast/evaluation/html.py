"""One self-contained HTML page: text, tables, plots and frames, all inside the file.

No script, nothing fetched: the page forbids both to the browser that shows it.
"""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vlmrm_fast.errors import ArgumentError

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:"
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem;
       color: #1c2430; background: #fff; }
h1, h2, h3 { line-height: 1.25; margin: 1.6em 0 .5em; } h1 { margin-top: 0; }
table { border-collapse: collapse; font-size: 13px; margin: 1rem 0; }
.scroll { overflow-x: auto; }
th, td { border-bottom: 1px solid #d8dee6; padding: .3rem .6rem; text-align: left;
         vertical-align: top; }
th { border-bottom-width: 2px; } td.number { text-align: right; white-space: nowrap;
     font-variant-numeric: tabular-nums; }
figure { margin: 1rem 0; } figcaption { color: #55606e; font-size: 13px; }
figure > img, figure > video { max-width: 100%; }
.frames { display: flex; flex-wrap: wrap; gap: .75rem; } .frames figure { margin: 0; width: 9rem; }
.frames img { width: 9rem; display: block; border: 1px solid #d8dee6; }
.note { border-left: 4px solid #7b8794; background: #f4f6f8; padding: .6rem 1rem; margin: 1rem 0; }
.good { border-color: #2e8b57; background: #edf7f1; }
.bad { border-color: #c0392b; background: #fbeeec; }
"""

NOTES = ("plain", "good", "bad")


class Page:
    """A page that is filled from top to bottom and written once. Everything is escaped.

    Attributes:
        title: of the window and the first heading.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self._parts: list[str] = []

    def heading(self, text: str, level: int = 2) -> Page:
        """Start a section.

        Args:
            text: the heading.
            level: 2 for a section, 3 for one inside it.

        Returns:
            The page itself, as every method that adds something.
        """
        return self._add(f"<h{level}>{_escape(text)}</h{level}>")

    def text(self, text: str) -> Page:
        """Add a paragraph; empty lines in `text` part it into several.

        Args:
            text: plain text.

        Returns:
            The page.
        """
        for paragraph in text.split("\n\n"):
            self._add(f"<p>{_escape(paragraph.strip())}</p>")
        return self

    def note(self, text: str, kind: str = "plain") -> Page:
        """Add a paragraph in a box; one line break in `text` starts a new line.

        Args:
            text: plain text.
            kind: "plain", "good" (green) or "bad" (red).

        Returns:
            The page.
        """
        assert kind in NOTES
        lines = "<br>".join(map(_escape, text.splitlines()))
        return self._add(f'<div class="note {kind}">{lines}</div>')

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> Page:
        """Add a table.

        Args:
            headers: one a column.
            rows: cells: text, booleans, whole numbers, floats (shown with four digits) or None
                (an empty cell); numbers are aligned to the right.

        Returns:
            The page.

        Raises:
            ArgumentError: a row has another length than the headers.
        """
        lines = ["".join(f"<th>{_escape(str(header))}</th>" for header in headers)]
        for row in rows:
            if len(row) != len(headers):
                raise ArgumentError(
                    f"rows must have a cell for each of {len(headers)} headers, got {len(row)}."
                )
            lines.append("".join(map(_cell, row)))
        body = "\n".join(f"<tr>{line}</tr>" for line in lines)
        return self._add(f'<div class="scroll"><table>\n{body}\n</table></div>')

    def figure(self, figure: Any, caption: str = "", dpi: int = 110) -> Page:
        """Add a plot as a picture.

        Args:
            figure: a `matplotlib.figure.Figure`.
            caption: a sentence below it; also read out in its place.
            dpi: dots per inch of the picture.

        Returns:
            The page.
        """
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=dpi)
        return self._add(
            f"<figure>{_image(buffer.getvalue(), caption)}{_caption(caption)}</figure>"
        )

    def frames(self, images: Sequence[np.ndarray] | np.ndarray, captions: Sequence[str]) -> Page:
        """Add a grid of frames, bit for bit, each with its caption.

        Args:
            images: n arrays (H, W, 3) uint8; sizes may differ.
            captions: n texts.

        Returns:
            The page.

        Raises:
            ArgumentError: an image is not (H, W, 3) uint8, or the numbers differ.
        """
        if len(images) != len(captions):
            raise ArgumentError(
                f"captions must be as many as images, {len(images)}, got {len(captions)}."
            )
        cells = [
            f"<figure>{_image(_png(image), caption)}{_caption(caption)}</figure>"
            for image, caption in zip(images, captions, strict=True)
        ]
        return self._add(f'<div class="frames">{"".join(cells)}</div>')

    def video(self, path: str | Path, caption: str = "") -> Page:
        """Add an MP4 video; its bytes become part of the page.

        Args:
            path: the file.
            caption: a sentence below it.

        Returns:
            The page.

        Raises:
            ArgumentError: the file cannot be read.
        """
        try:
            data = base64.b64encode(Path(path).read_bytes()).decode()
        except OSError as error:
            raise ArgumentError(f"path must be a readable video, got {path}: {error}.") from error
        source = f'<video controls muted src="data:video/mp4;base64,{data}"></video>'
        return self._add(f"<figure>{source}{_caption(caption)}</figure>")

    def html(self) -> str:
        """Return the whole page."""
        title, body = _escape(self.title), "\n".join(self._parts)
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{title}</title>\n<style>{_STYLE}</style></head>\n"
            f"<body>\n<h1>{title}</h1>\n{body}\n</body></html>\n"
        )

    def write(self, path: str | Path) -> Path:
        """Write the page; a page that is there already is replaced whole or not at all.

        Args:
            path: the file to write.

        Returns:
            The file's path.

        Raises:
            ArgumentError: the file cannot be written.
        """
        target = Path(path)
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            # File names that are not text (lone surrogates) are shown as escapes.
            partial.write_bytes(self.html().encode("utf-8", "backslashreplace"))
            partial.replace(target)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise ArgumentError(f"path must be a file to write, got {path}: {error}.") from error
        return target

    def _add(self, part: str) -> Page:
        self._parts.append(part)
        return self


def _escape(text: str) -> str:
    return html.escape(text, quote=True)


def _cell(value: Any) -> str:
    """Return one cell of a table."""
    if value is None:
        return "<td></td>"
    if isinstance(value, (bool, np.bool_)):
        return f"<td>{'yes' if value else 'no'}</td>"
    if isinstance(value, (int, np.integer)):
        return f'<td class="number">{value:,}</td>'
    if isinstance(value, (float, np.floating)):
        return f'<td class="number">{value:.4g}</td>'
    return f"<td>{_escape(str(value))}</td>"


def _png(image: np.ndarray) -> bytes:
    """Return the bytes of a lossless picture."""
    from PIL import Image

    array = np.asarray(image)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise ArgumentError(f"images must be (H, W, 3) uint8, got {array.shape} {array.dtype}.")
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()


def _image(png: bytes, caption: str) -> str:
    data = base64.b64encode(png).decode()
    return f'<img alt="{_escape(caption)}" src="data:image/png;base64,{data}">'


def _caption(caption: str) -> str:
    return f"<figcaption>{_escape(caption)}</figcaption>" if caption else ""
