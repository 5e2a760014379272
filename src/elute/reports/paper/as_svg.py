"""A picture of a report as SVG: text as text, and nothing that two pictures in one page would both be called."""

from __future__ import annotations

import io
import re

from elute.reports.html import Markup, tag
from elute.reports.paper.blocks import WIDTH, Picture
from elute.reports.paper.canvas import Canvas, drawable

_FONT = "'DejaVu Sans', Verdana, Arial, sans-serif"


def svg(picture: Picture) -> Markup:
    """Return a picture as an SVG that stands alone or in a page."""
    canvas = Canvas(WIDTH, picture.height)
    picture.draw(canvas)
    held = io.BytesIO()
    canvas.figure.savefig(held, format="svg", metadata={"Date": None, "Creator": None})
    marks = re.search(r"</defs>\s*(.*)</svg>", held.getvalue().decode(), re.DOTALL)
    inner = re.sub(
        r'(<g) id="[\w.-]+"', r"\1", marks[1] if marks else ""
    )  # of several in one page each would come again
    inner = re.sub(r"(?<=font-family: )'DejaVu Sans'[^;\"]*", _FONT, inner).replace("\u200e", "")
    inner = re.sub(r' transform="rotate\(-?0 [^"]*"', "", inner)
    size = {"width": f"{WIDTH:g}pt", "height": f"{picture.height:g}pt", "viewBox": f"0 0 {WIDTH:g} {picture.height:g}"}
    told = {"role": "img", "aria-label": drawable(picture.told), "xmlns": "http://www.w3.org/2000/svg"}
    return tag("svg", Markup(f"\n{inner}"), **size, **told)
