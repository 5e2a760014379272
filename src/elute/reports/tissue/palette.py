"""The Explorer's colours for pages that are static: the reader's system chooses, a switch overrides it, paper is light.

The Explorer's style sheet has them in two rules, dark and `[data-theme="light"]`; here they become the variables of
three cases. So there is one place in which a colour is changed.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

_RULE = re.compile(r"^(:root[^{]*)\{([^}]*)\}", re.MULTILINE)
PAGE = Path(__file__).parent / "page"
EXPLORER = Path(__file__).parents[1] / "explorer" / "page"


@cache
def variables() -> tuple[str, str]:
    """Declarations of the dark theme, and of the light one."""
    rules = {head.strip(): " ".join(body.split()) for head, body in _RULE.findall((EXPLORER / "page.css").read_text())}
    return rules[":root"], rules[':root[data-theme="light"]']


@cache
def style() -> str:
    """The style sheet of every page."""
    dark, light = variables()
    own = (PAGE / "page.css").read_text()
    return (
        f":root {{ {light} }}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
        f'@media screen {{ :root[data-theme="light"] {{ {light} }} :root[data-theme="dark"] {{ {dark} }} }}\n{own}'
    )
