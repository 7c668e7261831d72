"""HTML fragments of the page: steps, answer, reasons. All text from outside is escaped here."""

from __future__ import annotations

from html import escape
from typing import Any

from ..predict.predictor import Prediction, sentence
from .models import Status
from .reasons import Reasons, strongest

STEPS = {"open": "Decode", "voice": "Voice", "transcript": "Words", "face": "Face", "model": "Model"}
_HEADS = (("text", "Words alone"), ("av", "Voice and face alone"), ("fusion", "Fusion tokens"))

EMPTY_ANSWER = (
    '<div class="mlf-empty"><p>The answer appears here: a sentiment from strongly negative to strongly positive, '
    "what words, voice and face each say, and what the answer rests on.</p></div>"
)


def status_line(status: Status) -> str:
    """What is loaded, in one line."""
    if status.problem:
        return f'<p class="mlf-status mlf-bad" role="alert">{escape(status.problem)}</p>'
    if not status.ready:
        return '<p class="mlf-status" role="status">Loading the models; you may choose a clip meanwhile.</p>'
    loading = [name for name, there in (("speech", status.speech), ("face", status.face)) if there is None]
    if loading:
        return f'<p class="mlf-status" role="status">Still loading the {" and the ".join(loading)} model.</p>'
    notes = " ".join(status.notes)
    if status.speech is False:
        notes += " Type the words yourself."
    return f'<p class="mlf-status" role="status">Ready. {escape(notes)}</p>'


def steps(done: dict[str, float], current: str | None, fraction: float, left_out: set[str]) -> str:
    """The stages of one clip: which are done and how long they took, and which is under way.

    Args:
        done: stage -> seconds.
        current: the stage under way; None: none.
        fraction: of the current stage that is done, 0 to 1.
        left_out: stages that this clip does not need.
    """
    items = []
    for stage, title in STEPS.items():
        if stage in done:
            items.append(f'<li class="done"><b>{title}</b> <span>{done[stage]:.1f} s</span></li>')
        elif stage == current:
            items.append(
                f'<li class="now" aria-current="step"><b>{title}</b> <span>{fraction:.0%}</span></li>'
            )
        elif stage in left_out:
            items.append(f'<li class="out"><b>{title}</b> <span>not needed</span></li>')
        else:
            items.append(f"<li><b>{title}</b> <span>&nbsp;</span></li>")
    return f'<ol class="mlf-steps" aria-label="Progress">{"".join(items)}</ol>'


def problem(message: str) -> str:
    """An error message in place of the answer."""
    return f'<div class="mlf-problem" role="alert"><p>{escape(message)}</p></div>'


def signed(value: float) -> str:
    """A sentiment or effect with its sign, two places, and no minus before zero."""
    return f"{round(value, 2) + 0.0:+.2f}"


def bar(value: float, scale: float, label: str) -> str:
    """A bar from -scale to +scale, filled from 0 to the value."""
    share = max(-1.0, min(1.0, value / scale)) * 50
    left, width = (50 + share, -share) if share < 0 else (50, share)
    side = "neg" if share < 0 else "pos"
    return (
        f'<div class="mlf-bar" role="img" aria-label="{escape(label)}: {signed(value)} on a scale from '
        f'{-scale:g} to {scale:g}"><i class="{side}" style="left:{left:.1f}%;width:{width:.1f}%"></i>'
        f'<u style="left:{50 + share:.1f}%"></u></div>'
    )


def answer(prediction: Prediction, changed: float | None = None) -> str:
    """The sentiment as a number, a word and a bar; what each head says; remarks.

    Args:
        changed: the sentiment of the answer before, where the same clip was asked about again.
    """
    scale = prediction.scale
    was = f'<span class="mlf-was">was {signed(changed)}</span>' if changed is not None else ""
    heads = "".join(_head(title, prediction.heads[name], scale) for name, title in _HEADS)
    notes = "".join(f"<li>{escape(sentence(note))}</li>" for note in prediction.notes)
    notes = f'<ul class="mlf-notes" aria-label="Remarks">{notes}</ul>' if notes else ""
    return (
        '<section class="mlf-answer" aria-live="polite">'
        f'<p class="mlf-big"><strong data-testid="sentiment">{signed(prediction.sentiment)}</strong> '
        f"<em>{escape(prediction.polarity)}</em> {was}</p>"
        f"{bar(prediction.sentiment, scale, 'Sentiment')}"
        f'<div class="mlf-scale" aria-hidden="true"><span>{-scale:g} negative</span><span>0</span>'
        f"<span>positive +{scale:g}</span></div>"
        f'<table class="mlf-heads"><caption>What each head says by itself</caption><tbody>{heads}</tbody></table>'
        f"{found(prediction)}{notes}</section>"
    )


def _head(title: str, value: float | None, scale: float) -> str:
    """A row of the heads' table; a dash where the head's stream is missing."""
    number, drawn = ("–", "") if value is None else (signed(value), bar(value, scale, title))
    return f"<tr><th scope='row'>{title}</th><td>{number}</td><td>{drawn}</td></tr>"


def found(prediction: Prediction) -> str:
    """What was found in the clip."""
    clip = prediction.clip
    parts = [f"{clip['seconds']:.1f} s"]
    if clip.get("face_share") is not None:
        parts.append(f"a face in {clip['face_share']:.0%} of the pictures")
    if clip.get("voiced_share") is not None:
        parts.append(f"{clip['voiced_share']:.0%} of the sound voiced")
    source = {"transcribed": "words transcribed", "given": "words given"}.get(clip.get("text_source", ""), "")
    parts += [source] if source else []
    return f'<p class="mlf-found">{escape(", ".join(parts))}</p>'


def reasons(found: Reasons) -> str:
    """The strongest words, moments and tokens, with what they did to the answer."""
    parts = [
        _effects("Streams", found.modalities, found.replacement.get("modalities")),
        _effects("Words", strongest(found.words), found.replacement.get("words")),
        _effects("Moments", strongest(found.moments), found.replacement.get("time")),
        _effects("Fusion tokens", strongest(found.tokens), found.replacement.get("tokens")),
    ]
    return (
        '<section class="mlf-reasons"><h3>What the answer rests on</h3>'
        "<p>How far the sentiment moves when one part is ablated: + means that it pushed the answer up. "
        "Effects are this model's, one at a time, and do not add up.</p>"
        f'<div class="mlf-grid">{"".join(parts)}</div></section>'
    )


def _effects(title: str, entries: list[dict[str, Any]], replacement: str | None) -> str:
    if not entries:
        return f"<div><h4>{title}</h4><p class='mlf-none'>none in use</p></div>"
    largest = max(abs(entry["effect"]) for entry in entries) or 1.0
    rows = []
    for entry in entries:
        width = 100 * abs(entry["effect"]) / largest
        side = "neg" if entry["effect"] < 0 else "pos"
        says = f" <small>says {signed(entry['says'])}</small>" if "says" in entry else ""
        rows.append(
            f"<tr><th scope='row'>{escape(str(entry['name']))}{says}</th><td>{signed(entry['effect'])}</td>"
            f'<td aria-hidden="true"><i class="{side}" style="width:{width:.0f}%"></i></td></tr>'
        )
    how = f"<p class='mlf-how'>{escape(replacement)}</p>" if replacement else ""
    return f"<div><h4>{title}</h4><table><tbody>{''.join(rows)}</tbody></table>{how}</div>"


def live_answer(now: Any) -> str:
    """The last answer of a live session, the words so far, and how well it keeps up."""
    if now is None:
        return '<div class="mlf-empty"><p>Start the camera: an answer comes every two seconds.</p></div>'
    parts = []
    if now.prediction is not None:
        prediction = now.prediction
        parts.append(
            f'<p class="mlf-big"><strong data-testid="live-sentiment">{signed(prediction.sentiment)}</strong> '
            f"<em>{escape(prediction.polarity)}</em></p>{bar(prediction.sentiment, prediction.scale, 'Sentiment')}"
        )
        face = prediction.clip.get("face_share")
        if face == 0:
            parts.append('<p class="mlf-found">No face in view.</p>')
    else:
        parts.append("<p>Listening and looking; the first answer comes after two seconds.</p>")
    words = " ".join(word["word"] for word in now.words[-40:])
    parts.append(f'<p class="mlf-words" aria-label="Words so far">{escape(words) or "&nbsp;"}</p>')
    behind = f", {now.dropped} pictures dropped to keep up" if now.dropped else ", no picture dropped"
    parts.append(
        f'<p class="mlf-found" data-testid="live-pace">{now.seconds:.0f} s, {now.answers} answers, '
        f"{now.frames} pictures looked at{behind}, the last answer took {now.took:.1f} s</p>"
    )
    if now.ended:
        parts.append(f'<p class="mlf-status" role="status">{escape(now.ended)}</p>')
    return f'<section class="mlf-answer">{"".join(parts)}</section>'
