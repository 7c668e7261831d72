"""Draw the model's figure: docs/figure-model-light.svg and docs/figure-model-dark.svg.

    python scripts/draw_model_figure.py

One drawing in two sets of colours, so that the README's first screen reads well on a light and on a dark page.
"""

from html import escape
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
WIDTH, HEIGHT = 1120, 660
THEMES = {
    "light": {
        "ink": "#1f2328",
        "soft": "#59636e",
        "line": "#818b98",
        "text": "#0969da",
        "text_fill": "#ddf4ff",
        "fusion": "#bc4c00",
        "fusion_fill": "#fff1e5",
        "av": "#1a7f37",
        "av_fill": "#dafbe1",
        "frozen_fill": "#eff2f5",
        "page": "#ffffff",
    },
    "dark": {
        "ink": "#f0f6fc",
        "soft": "#9198a1",
        "line": "#656c76",
        "text": "#58a6ff",
        "text_fill": "#12253f",
        "fusion": "#f0883e",
        "fusion_fill": "#3a2313",
        "av": "#3fb950",
        "av_fill": "#12281a",
        "frozen_fill": "#1b2129",
        "page": "#0d1117",
    },
}


class Drawing:
    """A few shapes in the colours of one theme, collected as SVG elements."""

    def __init__(self, colours: dict[str, str]) -> None:
        self.colours = colours
        self.parts: list[str] = []

    def box(self, x: float, y: float, w: float, h: float, fill: str, edge: str, dashed: bool = False) -> None:
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="8" fill="{self.colours[fill]}" '
            f'stroke="{self.colours[edge]}" stroke-width="1.6"{dash}/>'
        )

    def circle(self, x: float, y: float, r: float, fill: str, edge: str) -> None:
        self.parts.append(
            f'<circle cx="{x:g}" cy="{y:g}" r="{r:g}" fill="{self.colours[fill]}" '
            f'stroke="{self.colours[edge]}" stroke-width="2"/>'
        )

    def words(
        self,
        x: float,
        y: float,
        text: str,
        colour: str = "ink",
        size: int = 17,
        bold: bool = False,
        at: str = "middle",
    ) -> None:
        weight = ' font-weight="600"' if bold else ""
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{self.colours[colour]}" '
            f'text-anchor="{at}"{weight}>{escape(text)}</text>'
        )

    def arrow(
        self, points: list[tuple[float, float]], colour: str, width: float = 2, head: bool = True
    ) -> None:
        path = " ".join(f"{'M' if i == 0 else 'L'}{x:g} {y:g}" for i, (x, y) in enumerate(points))
        end = f' marker-end="url(#{colour})"' if head else ""
        self.parts.append(
            f'<path d="{path}" fill="none" stroke="{self.colours[colour]}" stroke-width="{width:g}" '
            f'stroke-linejoin="round"{end}/>'
        )

    def svg(self) -> str:
        markers = "".join(
            f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
            f'markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0L8 4L0 8z" fill="{self.colours[name]}"/></marker>'
            for name in ("line", "text", "fusion", "av")
        )
        body = "\n".join(self.parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            f'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif">\n'
            f"<title>DeepMLF: fusion tokens in a frozen language model</title>\n<defs>{markers}</defs>\n{body}\n</svg>\n"
        )


TEXT_X = [372 + 44 * i for i in range(5)]
FUSION_X = [622 + 40 * i for i in range(3)]
STACK_X, STACK_W = 344, 384
BLOCK_TOPS = (262, 412)


def audio_visual_path(d: Drawing) -> None:
    """Voice and face -> AV encoder -> AV states, and the line that carries them to the MM Blocks."""
    for x, name, shape in ((24, "voice", "[Lₐ, dₐ]"), (160, "face", "[Lᵥ, dᵥ]")):
        d.box(x, 574, 116, 62, "page", "av")
        d.words(x + 58, 600, name, "av", 18, bold=True)
        d.words(x + 58, 623, shape, "soft", 15)
        d.arrow([(x + 58, 572), (x + 58, 528)], "av")
    d.box(24, 416, 252, 110, "av_fill", "av")
    d.words(150, 445, "audio-visual encoder", "ink", 18, bold=True)
    d.words(150, 471, "pool to K steps of time", "soft", 15)
    d.words(150, 492, "a Transformer for each,", "soft", 15)
    d.words(150, 513, "joined step by step", "soft", 15)
    d.arrow([(150, 414), (150, 374)], "av")
    for i in range(7):
        d.box(52 + 29 * i, 342, 22, 28, "av_fill", "av")
    d.words(150, 330, "AV states [K, d]", "av", 17, bold=True)
    for top in BLOCK_TOPS:
        d.arrow([(256, 356), (306, 356), (306, top + 23), (STACK_X - 3, top + 23)], "av", 2.4)


def language_stream(d: Drawing) -> None:
    """Words and fusion tokens -> LM layers, an MM Block after some of them."""
    for x, word in zip(TEXT_X, ("that", "was", "a", "great", "day"), strict=True):
        d.words(x, 632, word, "ink", 16)
        d.box(x - 17, 570, 34, 34, "text_fill", "text")
    for x in FUSION_X:
        d.circle(x, 587, 16, "fusion_fill", "fusion")
    d.words(FUSION_X[1], 632, "fusion tokens", "fusion", 17, bold=True)
    for top, height, name, note in (
        (460, 68, "LM layers 1 … n", "here the fusion tokens read the words"),
        (310, 46, "LM layer n + 1", ""),
        (186, 46, "…  LM layer N", ""),
    ):
        d.box(STACK_X, top, STACK_W, height, "frozen_fill", "line")
        d.words(STACK_X + 16, top + 29, name, "ink", 17, bold=True, at="start")
        d.words(STACK_X + STACK_W - 16, top + 29, "frozen", "soft", 16, at="end")
        d.words(STACK_X + 16, top + 54, note, "soft", 15, at="start")
    for top in BLOCK_TOPS:
        d.box(STACK_X, top, STACK_W, 46, "fusion_fill", "fusion")
        d.words(STACK_X + 16, top + 29, "MM Block", "fusion", 18, bold=True, at="start")
        d.words(STACK_X + STACK_W - 16, top + 29, "trained", "soft", 16, at="end")
    for low, high in ((566, 531), (410, 359), (260, 235)):
        for x in TEXT_X:
            d.arrow([(x, low), (x, high)], "text", 1.6)
        for x in FUSION_X:
            d.arrow([(x, low), (x, high)], "fusion", 1.6)


def heads(d: Drawing) -> None:
    """What is read off at the end: one sentiment from each part, and the prediction from all of them."""
    d.box(24, 22, 736, 44, "page", "ink")
    d.words(392, 50, "task head: the sentiment of the utterance", "ink", 18, bold=True)
    d.arrow([(150, 310), (150, 69)], "av")
    d.arrow([(TEXT_X[-1], 184), (TEXT_X[-1], 69)], "text")
    for x in FUSION_X:
        d.arrow([(x, 184), (x, 158), (FUSION_X[0], 158)], "fusion", head=False)
    d.arrow([(FUSION_X[0], 158), (FUSION_X[0], 69)], "fusion")
    for start, box_x, name, colour in (
        (150, 24, "AV head", "av"),
        (TEXT_X[-1], 408, "text head", "text"),
        (FUSION_X[0], 646, "fusion head", "fusion"),
    ):
        d.box(box_x, 96, 114 if start == FUSION_X[0] else 100, 36, "page", colour)
        d.words(box_x + (57 if start == FUSION_X[0] else 50), 120, name, colour, 16, bold=True)
        d.arrow([(start, 114), (box_x - 3 if box_x > start else box_x + 103, 114)], colour, 1.6)
    d.words(160, 176, "mean", "soft", 15, at="start")
    d.words(TEXT_X[-1] - 10, 176, "last word", "soft", 15, at="end")
    d.words(FUSION_X[0] + 10, 152, "mean", "soft", 15, at="start")


def block_in_detail(d: Drawing) -> None:
    """The inset on the right: one MM Block."""
    x, w = 796, 306
    d.box(x, 22, w, 616, "page", "fusion", dashed=True)
    d.words(x + w / 2, 54, "inside an MM Block", "fusion", 18, bold=True)
    d.arrow([(STACK_X + STACK_W + 2, BLOCK_TOPS[0] + 23), (x - 3, BLOCK_TOPS[0] + 23)], "fusion", 1.6)
    axis = x + 46
    d.words(x + 20, 622, "words, fusion tokens", "soft", 15, at="start")
    d.arrow([(axis, 602), (axis, 76)], "line", 2)
    steps = [
        (436, "cross-attention", "fusion tokens ask,", "AV states answer", "σ(α₁)"),
        (178, "feed-forward", "begins as the LM layer's", "own; for every token", "σ(α₂)"),
    ]
    for y, name, line1, line2, gate in steps:
        d.box(x + 86, y, 204, 104, "fusion_fill", "fusion")
        middle = x + 188
        d.words(middle, y + 31, name, "ink", 17, bold=True)
        d.words(middle, y + 60, line1, "soft", 15)
        d.words(middle, y + 82, line2, "soft", 15)
        d.arrow([(axis, y + 128), (x + 124, y + 128), (x + 124, y + 107)], "fusion")
        d.arrow([(middle, y - 2), (middle, y - 34), (x + 156, y - 34)], "fusion", head=False)
        d.box(x + 88, y - 52, 68, 36, "page", "fusion")
        d.words(x + 122, y - 28, gate, "fusion", 17, bold=True)
        d.arrow([(x + 86, y - 34), (axis + 16, y - 34)], "fusion")
        d.circle(axis, y - 34, 13, "page", "line")
        d.words(axis, y - 28, "+", "ink", 19, bold=True)
        d.words(x + 202, y - 29, "gate", "soft", 15, at="start")
    d.words(x + 286, 622, "AV states", "av", 16, bold=True, at="end")
    d.arrow([(x + 250, 604), (x + 250, 543)], "av", 2.4)


def draw(colours: dict[str, str]) -> str:
    """The whole figure as SVG text."""
    d = Drawing(colours)
    audio_visual_path(d)
    language_stream(d)
    heads(d)
    block_in_detail(d)
    return d.svg()


if __name__ == "__main__":
    for theme, colours in THEMES.items():
        path = DOCS / f"figure-model-{theme}.svg"
        path.write_text(draw(colours), encoding="utf-8")
        print(f"wrote {path.relative_to(DOCS.parent)}")
