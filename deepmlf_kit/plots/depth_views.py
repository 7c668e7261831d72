"""Views by depth: gates, contribution of each branch, similarity of fusion tokens, sentiment at each layer."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..explain import Reading
from .style import COLOURS, DIVERGING, LINE, figure, heatmap, line, shortened


def gates_by_depth(reading: Reading) -> go.Figure:
    """Gates of every MM Block, and how much each branch adds to a fusion token relative to its state.

    Args:
        reading: with `norms`.

    A gate starts at its initial value (0.5 for a sigmoid) and moves little where training is short; the bars say
    what passes it. Large is not important: nothing says that a head reads the direction it points in.
    """
    gates = reading.seen.gates
    state = np.maximum(reading.get("state_norms"), 1e-9)  # [M, F]
    tokens = state.shape[1]
    parts = {
        "cross-attention": (
            reading.get("cross_attention_norms") / state,
            gates["cross_attention"],
            COLOURS["av"],
        ),
        "feed-forward": (
            reading.get("feed_forward_norms")[:, -tokens:] / state,
            gates["feed_forward"],
            COLOURS["fusion"],
        ),
    }
    made = make_subplots(specs=[[{"secondary_y": True}]])
    base = figure(
        "Gates and what passes them, by depth",
        subtitle=f"bars: mean over fusion tokens of what the branch adds, relative to the state; dots: gates; "
        f"“{shortened(reading.text, 60)}”",
    )
    made.update_layout(base.layout)
    x = [str(layer) for layer in reading.fusion_layers]
    for name, (relative, gate, colour) in parts.items():
        if np.isnan(gate).all():
            continue
        made.add_trace(
            go.Bar(
                x=x,
                y=relative.mean(axis=1),
                error_y={"array": relative.std(axis=1), "color": LINE, "thickness": 1},
                name=f"{name}: added",
                marker={"color": colour, "opacity": 0.55},
                hovertemplate="layer %{x}: %{y:.3f} of the state<extra>" + name + "</extra>",
            )
        )
        made.add_trace(
            line(
                x, gate, f"{name}: gate", colour, "layer %{x}: %{y:.3f}", mode="lines+markers", marker_size=8
            ).update(line_dash="solid" if name == "cross-attention" else "dot"),
            secondary_y=True,
        )
    made.update_xaxes(title_text="MM Block (after LM layer)", type="category")
    made.update_yaxes(title_text="added / state", rangemode="tozero")
    low = min(0.0, float(np.nanmin(gates["cross_attention"])))
    made.update_yaxes(title_text="gate", range=[low, 1.02], showgrid=False, tickmode="auto", secondary_y=True)
    made.update_layout(barmode="group", legend={"orientation": "h", "y": -0.28})
    return made


def sentiment_by_depth(reading: Reading) -> go.Figure:
    """Sentiment by depth: every head applied to the states after every layer.

    Args:
        reading: with `depth`.

    The heads were trained on the last states only; read earlier, they show when an answer becomes readable, not
    what the model "thinks" there.
    """
    fusion = reading.get("fusion_sentiment")  # [N + 1, F]
    depth = np.arange(len(fusion))
    made = figure(
        "How the sentiment forms through the layers",
        "depth (LM layers passed; shaded: an MM Block follows the layer)",
        "sentiment (label's units)",
        subtitle=f"heads read at every depth; “{shortened(reading.text, 60)}”",
        height=460,
    )
    for layer in reading.fusion_layers:
        made.add_vrect(x0=layer + 0.62, x1=layer + 1.38, fillcolor=COLOURS["av"], opacity=0.12, line_width=0)
    for token in range(fusion.shape[1]):
        made.add_trace(
            line(
                depth,
                fusion[:, token],
                f"token {token}",
                COLOURS["fusion"],
                "depth %{x}: %{y:+.2f}",
                width=1,
                opacity=0.45,
                showlegend=token == 0,
                legendgroup="tokens",
            )
        )
    if fusion.shape[1]:
        made.data[0].name = "each fusion token"
    for name, values, colour in (
        ("fusion tokens, mean", fusion.mean(axis=1), COLOURS["fusion"]),
        ("text head", reading.get("text_sentiment"), COLOURS["text"]),
        ("task head", reading.get("task_sentiment"), COLOURS["task"]),
    ):
        made.add_trace(
            line(depth, values, name, colour, "depth %{x}: %{y:+.2f}", width=3, mode="lines+markers")
        )
    if not np.isnan(reading.label):
        made.add_hline(
            y=reading.label,
            line={"color": COLOURS["label"], "dash": "dash"},
            annotation_text=f"label {reading.label:+.2f}",
            annotation_position="bottom left" if reading.label < 0 else "top left",
            annotation_font_color=COLOURS["label"],
        )
    made.update_xaxes(dtick=1 if len(depth) < 16 else 4)
    made.update_layout(legend={"orientation": "h", "y": -0.22})
    return made


def token_similarity(reading: Reading) -> go.Figure:
    """Cosine similarity of the fusion tokens' states, at the depth that the slider chooses.

    Args:
        reading: with `depth`. Close to 1 everywhere: the tokens do the same thing, fewer would do.
    """
    values = reading.get("token_similarity")  # [N + 1, F, F]
    names = ["input", *(f"layer {i}" for i in range(len(values) - 1))]
    off = ~np.eye(values.shape[1], dtype=bool)
    mean = [float(v[off].mean()) if off.any() else 1.0 for v in values]
    head = "Similarity of fusion tokens"
    made = figure(
        head,
        "fusion token",
        "fusion token",
        subtitle=f"cosine of their states after {names[-1]}, off-diagonal mean {mean[-1]:.2f}",
        height=520,
    )
    made.add_trace(
        heatmap(
            values[-1],
            None,
            None,
            "cosine",
            "tokens %{x} and %{y}: %{z:.2f}",
            zmin=-1,
            zmax=1,
            colorscale=DIVERGING,
        )
    )
    steps = [
        {
            "label": name,
            "method": "update",
            "args": [
                {"z": [v]},
                {"title.subtitle.text": f"cosine of their states after {name}, off-diagonal mean {m:.2f}"},
            ],
        }
        for name, v, m in zip(names, values, mean, strict=True)
    ]
    made.update_layout(
        sliders=[
            {
                "steps": steps,
                "active": len(steps) - 1,
                "currentvalue": {"prefix": "after ", "font": {"size": 12}},
                "pad": {"t": 40},
                "bgcolor": LINE,
            }
        ]
    )
    bare = {"dtick": 1, "constrain": "domain", "showgrid": False, "zeroline": False}
    made.update_yaxes(autorange="reversed", scaleanchor="x", **bare)
    made.update_xaxes(**bare)
    return made
