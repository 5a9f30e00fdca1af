#!/usr/bin/env python3
"""A chart of a page that the tool wrote, as a picture of its own: ``python scripts/chart.py PAGE TITLE PICTURE``.

The page's font comes along, its links stay behind, and it has paper, so that it is read on a dark page as well.
"""

import re
import sys
from pathlib import Path

_LOOK = "<style>text { font-family: system-ui, sans-serif !important }</style>"
_PAPER = '<rect width="100%" height="100%" fill="#fff"/>'


def chart(page: str, title: str) -> str:
    """The chart with a title.

    Raises
    ------
    ValueError
        The page has none; the message names those that it has.
    """
    drawn = {found[1]: found[0] for found in re.finditer(r'<svg[^>]* aria-label="([^"]+)".*?</svg>', page, re.DOTALL)}
    if title not in drawn:
        raise ValueError(f"no chart {title!r}; the page has {', '.join(drawn)}")
    bare = re.sub(r"</?a\b[^>]*>", "", drawn[title])
    return re.sub(r"(<svg[^>]*>)", rf"\1{_LOOK}{_PAPER}", bare, count=1) + "\n"


if __name__ == "__main__":
    source, wanted, picture = sys.argv[1:]
    Path(picture).write_text(chart(Path(source).read_text(encoding="utf-8"), wanted), encoding="utf-8")
