"""The look of every plotly figure: transparent, mid-grey ink, our colours, text that is never markup."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pluralis_lab.views import palette

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from pluralis_lab.views.fold import RunPicture

INK, _RULE = "#7A7F87", "rgba(128,134,142,0.25)"


def plain(value: str) -> str:
    """Return `value` so that plotly shows it as text: it reads `<` in labels as markup."""
    return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def blank(picture: RunPicture, title: str, subtitle: str, **layout: Any) -> Figure:
    """Return an empty figure in our style: transparent, so that the page's theme shows through, in mid-grey ink."""
    import plotly.graph_objects as go

    fig = go.Figure()
    fig.update_layout(
        template="none",
        title={
            "text": f"{title}<br><sup>{plain(subtitle)} · run {plain(picture.name)}</sup>",
            "x": 0,
            "xref": "paper",
            "xanchor": "left",
            "font": {"size": 16},
        },
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13, "color": INK},
        colorway=list(palette.CYCLE),
        margin={"l": 64, "r": 24, "t": 72, "b": 96},
        height=440,
        hoverlabel={"namelength": -1},
        legend={"orientation": "h", "y": -0.24, "yanchor": "top", "x": 0},
    )
    axis = {"gridcolor": _RULE, "zeroline": False, "linecolor": _RULE, "automargin": True}
    fig.update_xaxes(**axis)
    fig.update_yaxes(**axis)
    fig.update_layout(**layout)
    if picture.round is None:
        say(fig, picture.headline)
    return fig


def note(fig: Figure, x: float, y: float, text: str, *, xref: str = "paper", color: str = INK) -> None:
    """Write above the plot, at `x` of the axis (`xref="x"`) or of the plot's width."""
    fig.add_annotation(
        x=x,
        y=y,
        xref=xref,
        yref="paper",
        xanchor="center" if xref == "x" else "left",
        yanchor="bottom",
        text=text,
        showarrow=False,
        font={"color": color},
    )


def say(fig: Figure, text: str) -> None:
    """Write in the middle of a figure that has nothing to draw why that is so."""
    fig.add_annotation(text=plain(text), x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False)
    fig.update_xaxes(visible=False)
    fig.update_yaxes(visible=False)
