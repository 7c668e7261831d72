"""One HTML page that works offline: the frame of every report of the kit (plotly's script is inside the page)."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs


def page(title: str, lead: str, parts: Sequence[str]) -> str:
    """A page, readable in light and dark.

    Args:
        title: plain text.
        lead: HTML of the line under the title.
        parts: HTML, in order.
    """
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>{_STYLE}</style>
<script>{get_plotlyjs()}</script>
</head>
<body>
<main>
<h1>{html.escape(title)}</h1>
<p>{lead}</p>
{chr(10).join(parts)}
</main>
</body>
</html>
"""


def script_json(value: Any) -> str:
    """JSON for a page's `<script>`: no text in it can end the script or open a comment."""
    text = json.dumps(value, ensure_ascii=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def figure_html(fig: go.Figure) -> str:
    """A figure for a page's parts."""
    return fig.to_html(
        full_html=False, include_plotlyjs=False, config={"displaylogo": False, "responsive": True}
    )


_STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --ink: #1f2328; --soft: #59636e; --line: #d1d9e0; }
@media (prefers-color-scheme: dark) { :root { --page: #14171c; --ink: #e6e8eb; --soft: #9aa4af; --line: #333a44; } }
body { background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; margin: 0; }
main { max-width: 1000px; margin: 0 auto; padding: 24px 20px 64px; }
h1 { font-size: 1.7rem; margin: 0 0 4px; } h2 { font-size: 1.25rem; margin: 40px 0 4px; }
p, li { max-width: 75ch; } h1 + p { color: var(--soft); margin-top: 0; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 12px; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child { text-align: left; } thead th { font-weight: 600; font-size: .85rem; color: var(--soft); }
code { font-size: .9em; background: color-mix(in srgb, var(--ink) 8%, transparent); padding: 1px 5px; border-radius: 4px; }
"""
