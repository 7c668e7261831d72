"""HTML fragments of the page: examples, steps, answer, words, reasons. All text from outside is escaped here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any

from ..explain.words import word_spans
from ..predict.prediction import Prediction, sentence
from .examples import Example
from .models import Status
from .reasons import Reasons, grouped_tokens, strongest
from .streams import NAMES, Said, Streams

STEPS = {"open": "Decode", "voice": "Voice", "transcript": "Words", "face": "Face", "model": "Model"}
DASH = "–"
LIVE_SPAN = 30.0  # seconds that live mode shows
MOST_SLOTS = 200  # words that are taken from the browser

EMPTY_ANSWER = (
    '<div class="mlf-empty"><h2>The answer</h2><p>It appears here: a sentiment from strongly negative to strongly '
    "positive, and what words, voice and face each add to it.</p></div>"
)
READING = '<div class="mlf-empty"><h2>The answer</h2><p>Reading the clip …</p></div>'


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


def answer(
    prediction: Prediction,
    streams: Streams,
    *,
    changed: float | None = None,
    held: Streams | None = None,
    so_far: bool = False,
    faces: Sequence[Sequence[float]] = (),
) -> str:
    """The sentiment as a number and a word, one chart of what it is made of, and remarks.

    Args:
        changed: the sentiment of the answer before, where the same clip was asked about again.
        held: an answer to compare with.
        so_far: the face is still to come.
        faces: where the face that was read is (`answering.face_boxes`).
    """
    was = f'<span class="mlf-was">was {signed(changed)}</span>' if changed is not None else ""
    if so_far:
        was = '<span class="mlf-was">so far, without the face</span>'
    verdict = prediction.verdict + (f" ({prediction.polarity})" if prediction.certain is False else "")
    notes = "".join(f"<li>{escape(sentence(note))}</li>" for note in prediction.notes)
    notes = f'<ul class="mlf-notes" aria-label="Remarks">{notes}</ul>' if notes else ""
    by = prediction.answered_by
    return (
        f'<section class="mlf-answer" aria-live="polite" data-faces="{json.dumps([*faces])}"><h2>The answer</h2>'
        f'<p class="mlf-big"><strong data-testid="sentiment{"-so-far" if so_far else ""}">'
        f"{signed(prediction.sentiment)}</strong> <em>{escape(verdict)}</em> {was}</p>"
        f'<p class="mlf-found">{escape(_why(streams))} {escape(_sure(prediction))}</p>'
        f"{chart(streams, held)}{notes}"
        f'<p class="mlf-found">{escape(found(prediction))}. Answered by the checkpoint {escape(by["checkpoint"])} on the '
        f"language model {escape(by['lm'])}.</p></section>"
    )


def _why(streams: Streams) -> str:
    """Which stream moved the answer most."""
    adds = {name: value for name, value in streams.adds.items() if value is not None}
    if not adds:
        return "There is nothing to read."
    name = max(adds, key=lambda stream: abs(adds[stream]))
    if abs(adds[name]) < 0.05 * streams.scale:
        return "Nothing in the clip moves the answer much."
    return f"The {NAMES[name].lower()} did most: {'they add' if name == 'text' else 'it adds'} {signed(adds[name])}."


def _sure(prediction: Prediction) -> str:
    if prediction.interval is None:
        return "How sure it is was not measured for this checkpoint."
    low, high = prediction.interval
    return f"For {prediction.coverage:.0%} of such clips the truth lies within the bar, here {signed(low)} to {signed(high)}."


def chart(streams: Streams, held: Streams | None = None) -> str:
    """Words, voice and face by themselves, as a sum, and together: all on one scale."""
    scale = streams.scale
    rows = [f'<tbody><tr><th scope="colgroup" colspan="{4 if held else 3}">Each by itself</th></tr>']
    for name, title in NAMES.items():
        other = held.alone[name] if held else None
        rows.append(
            _row(title, _dot(streams.alone[name], scale, name, other), streams.alone[name], held, other)
        )
    rows.append(f'</tbody><tbody><tr><th scope="colgroup" colspan="{4 if held else 3}">As a sum</th></tr>')
    at = streams.start
    start = _track(scale, "", _bar(0.0, at, scale, "start"))
    rows.append(_cells("Knowing nothing", start, signed(at), held and signed(held.start)))
    for name, title in NAMES.items():
        added = streams.adds[name]
        before = held.adds[name] if held else None
        drawn = "" if added is None else _bar(at, at + added, scale, name)
        rows.append(
            _cells(
                f"+ {title.lower()}",
                _track(scale, "", drawn),
                DASH if added is None else signed(added),
                held and (DASH if before is None else signed(before)),
            )
        )
        at += added or 0.0
    other = held.together if held else None
    rows.append(
        _row(
            "= together",
            _dot(streams.together, scale, "task", other),
            streams.together,
            held,
            other,
            "mlf-sum",
        )
    )
    compared = '<th scope="col">Held</th>' if held else ""
    return (
        f'<table class="mlf-chart"><caption>From {-scale:g}, strongly negative, to +{scale:g}, strongly positive'
        f"{_zone_said(streams.together)}</caption>"
        f'<thead><tr><th scope="col">Stream</th><th scope="col" class="mlf-axis" aria-hidden="true">{_axis(scale)}</th>'
        f'<th scope="col">Now</th>{compared}</tr></thead>{"".join(rows)}</tbody></table>{_difference(streams, held)}'
    )


def _zone_said(together: Said) -> str:
    if together.zone is None:
        return ""
    return f". Grey, up to {together.zone:.2f} from 0: I cannot tell"


def _difference(streams: Streams, held: Streams | None) -> str:
    """What is different from the held answer, in a sentence."""
    if held is None:
        return ""
    if streams == held:
        return (
            '<p class="mlf-found mlf-difference">This answer is held (rings): change a word, leave out voice or face, or give '
            "another clip, and compare.</p>"
        )
    parts = []
    for name, title in NAMES.items():
        now, then = streams.adds[name], held.adds[name]
        if now is not None and then is not None and abs(now - then) >= 0.01 * streams.scale:
            parts.append(f"{title.lower()} {signed(now - then)}")
    moved = streams.together.sentiment - held.together.sentiment
    rest = f": {', '.join(parts)}" if parts else ""
    return (
        f'<p class="mlf-found mlf-difference">Against the held answer (rings), “{escape(held.text)}”, the sentiment moves by '
        f"{signed(moved)}{rest}.</p>"
    )


def _row(
    title: str, track: str, said: Said | None, held: Streams | None, other: Said | None, kind: str = ""
) -> str:
    now = DASH if said is None else signed(said.sentiment)
    then = None if held is None else DASH if other is None else signed(other.sentiment)
    return _cells(title, track, now, then, kind)


def _cells(title: str, track: str, now: str, then: str | None, kind: str = "") -> str:
    compared = f"<td>{then}</td>" if then is not None else ""
    return f'<tr class="{kind}"><th scope="row">{title}</th><td aria-hidden="true">{track}</td><td>{now}</td>{compared}</tr>'


def _place(value: float, scale: float) -> float:
    """Where a sentiment lies on the scale, in percent from the left."""
    return 50 + 50 * max(-1.0, min(1.0, value / scale))


def _track(scale: float, zone: str, marks: str) -> str:
    return f'<div class="mlf-track">{zone}<s></s>{marks}</div>'


def _dot(said: Said | None, scale: float, name: str, other: Said | None = None) -> str:
    """A dot at what a stream says, its interval, the zone without a verdict, and a ring at the held answer."""
    ring = "" if other is None else f'<b class="ring" style="left:{_place(other.sentiment, scale):.1f}%"></b>'
    if said is None:
        return _track(scale, "", ring)
    zone = marks = ""
    if said.zone is not None and said.low is not None and said.high is not None:
        left, right = _place(-said.zone, scale), _place(said.zone, scale)
        zone = f'<i class="zone" style="left:{left:.1f}%;width:{right - left:.1f}%"></i>'
        left, right = _place(said.low, scale), _place(said.high, scale)
        marks = f'<i class="range {name}" style="left:{left:.1f}%;width:{right - left:.1f}%"></i>'
    marks += f'<b class="{name}" style="left:{_place(said.sentiment, scale):.1f}%"></b>'
    return _track(scale, zone, marks + ring)


def _bar(start: float, end: float, scale: float, name: str) -> str:
    left, right = sorted((_place(start, scale), _place(end, scale)))
    return f'<i class="bar {name}" style="left:{left:.1f}%;width:{max(right - left, 0.6):.1f}%"></i>'


def _axis(scale: float) -> str:
    ticks = (
        f'<span style="left:{50 + 50 * n / 3:.1f}%">{scale * n / 3:+g}</span>' for n in (-3, -2, -1, 1, 2, 3)
    )
    return f'<div class="mlf-ticks">{"".join(ticks)}<span style="left:50%">0</span></div>'


def slots_of(text: str) -> list[dict[str, Any]]:
    """A text as slots: {word, after, off}; `after` is what stands between it and the next, `off` whether it is left out."""
    spans = word_spans(text)
    ends = [*(a for a, _ in spans[1:]), len(text)][: len(spans)]
    return [
        {"word": text[a:b], "after": text[b:end], "off": False}
        for (a, b), end in zip(spans, ends, strict=True)
    ]


def slots_given(given: Any) -> list[dict[str, Any]]:
    """Slots from the browser, with several words typed into one taken apart; what is no slot is left out."""
    slots: list[dict[str, Any]] = []
    for slot in list(given)[:MOST_SLOTS] if isinstance(given, list) else []:
        if not isinstance(slot, dict):
            continue
        word, after, off = (
            str(slot.get("word", ""))[:200],
            str(slot.get("after", " "))[:9],
            bool(slot.get("off")),
        )
        parts = [{"word": word, "after": after, "off": True}] if off else slots_of(word)
        if parts:
            parts[-1]["after"] = after
        slots += parts
    return slots


def text_of(slots: list[dict[str, Any]]) -> str:
    """The text of those that are not left out."""
    return "".join(slot["word"] + slot["after"] for slot in slots if not slot["off"]).strip()


def transcript(streams: Streams, slots: list[dict[str, Any]] | None = None, *, editable: bool = True) -> str:
    """The words, each coloured by its effect; where editable, a click drops one or takes another.

    Args:
        slots: with the words that were left out.
    """
    slots = slots_of(streams.text) if slots is None else slots
    chips, kept = [], 0
    for number, slot in enumerate(slots):
        if slot["off"]:
            chips.append(_chip(number, slot["word"], None, streams.scale, editable, " off"))
            continue
        at = kept - streams.first
        chips.append(
            _chip(
                number,
                slot["word"],
                streams.words[at] if 0 <= at < len(streams.words) else None,
                streams.scale,
                editable,
            )
        )
        kept += 1
    how = "Click a word to drop it or to type another. " if editable else ""
    body = " ".join(chips) or '<span class="mlf-none">No words.</span>'
    editor = _EDITOR if editable and slots else ""
    data = escape(json.dumps(slots, ensure_ascii=False)) if editable else ""
    return (
        f'<section class="mlf-transcript" data-slots="{data}"><h3>The words</h3><p class="mlf-how">{how}'
        "The number is how far a word moves the answer: blue up, red down.</p>"
        f'<p class="mlf-line">{body}</p>{editor}</section>'
    )


_EDITOR = (
    '<form class="mlf-edit" hidden><label>Replace by <input name="word" maxlength="100" autocomplete="off"></label>'
    '<button type="submit">Replace</button><button type="button" data-do="drop">Drop the word</button>'
    '<button type="button" data-do="close">Cancel</button></form>'
)


def _chip(
    number: int, word: str, found: dict[str, Any] | None, scale: float, editable: bool, kind: str = ""
) -> str:
    effect = found["effect"] if found else None
    strength = 0.0 if effect is None else min(1.0, abs(effect) / (scale / 3))
    side = "" if effect is None else " neg" if effect < 0 else " pos"
    unknown = "not measured yet" if found else "not read"
    said = "left out; click to put it back" if kind else unknown if effect is None else signed(effect)
    times = (
        ""
        if not found or found["start"] is None
        else f' data-start="{found["start"]}" data-end="{found["end"]}"'
    )
    small = "dropped" if kind else signed(effect) if effect is not None else "…" if found else ""
    shown = f"<del>{escape(word)}</del>" if kind else escape(word)
    tag = "button type='button'" if editable else "span"
    return (
        f'<{tag} class="mlf-word{side}{kind}" style="--strength:{strength:.2f}" data-n="{number}"{times} '
        f'aria-label="{escape(word)}: {said}">{shown}<small>{small}</small></{tag.split()[0]}>'
    )


def cards(shown: list[Example], predictions: dict[str, Prediction]) -> str:
    """The examples as buttons with a still and what the model answers."""
    items = []
    for example in shown:
        said = predictions.get(example.name)
        told = "…" if said is None else f"{signed(said.sentiment)} {said.verdict}"
        if said is not None and said.certain is not False and said.sentiment * example.meant < 0:
            told += ": it misses what is meant"
        items.append(
            f'<button type="button" class="mlf-card" data-name="{escape(example.name)}"><img alt="" src="{example.thumbnail}">'
            f"<span><b>{escape(example.title)}</b><q>{escape(example.text)}</q><small>{escape(example.about)}</small>"
            f"<em>{escape(told)}</em></span></button>"
        )
    return f'<div class="mlf-cards" role="group" aria-label="Examples">{"".join(items)}</div>'


def found(prediction: Prediction) -> str:
    """What was found in the clip, in plain text."""
    clip = prediction.clip
    parts = [f"{clip['seconds']:.1f} s"]
    if clip.get("face_share") is not None:
        parts.append(f"a face in {clip['face_share']:.0%} of the pictures")
    if clip.get("voiced_share") is not None:
        parts.append(f"{clip['voiced_share']:.0%} of the sound voiced")
    source = {"transcribed": "words transcribed", "given": "words given"}.get(clip.get("text_source", ""), "")
    parts += [source] if source else []
    return ", ".join(parts)


def reasons(found: Reasons) -> str:
    """The strongest moments and the fusion tokens, with what they did to the answer, and how the number comes about."""
    scale = found.streams.scale
    tokens = grouped_tokens(found.tokens, scale)
    parts = [
        _effects("Moments", strongest(found.moments), found.replacement.get("time"), scale),
        _effects("Fusion tokens", tokens, found.replacement.get("tokens"), scale),
    ]
    return (
        '<section class="mlf-reasons"><h2>What else it rests on</h2>'
        "<p>How far the sentiment moves when one part is ablated: + means that it pushed the answer up. All bars have "
        f"one scale, {scale / 3:g} from the middle to the end. Effects are this model's, one at a time, and do not add up.</p>"
        f'<div class="mlf-grid">{"".join(parts)}</div>'
        "<details><summary>How the number comes about</summary><p>The fusion tokens stand behind the words in the frozen "
        "language model and read voice and face after some of its layers. The task head reads three things: the mean of "
        "the fusion tokens, the last word's state and the mean voice-and-face state; its output is the answer. What a "
        "token “says” is the fusion head's reading of that token, which trains it and does not enter the answer. What a "
        "stream adds is its Shapley value over all orders in which words, voice and face can come.</p></details></section>"
    )


def _effects(title: str, entries: list[dict[str, Any]], replacement: str | None, scale: float) -> str:
    if not entries:
        return f"<div><h3>{title}</h3><p class='mlf-none'>none in use</p></div>"
    rows = []
    for entry in entries:
        drawn = _track(
            scale / 3, "", _bar(0.0, entry["effect"], scale / 3, "neg" if entry["effect"] < 0 else "pos")
        )
        says = (
            f" <small>say{'s' if len(entry['tokens']) == 1 else ''} {signed(entry['says'])}</small>"
            if "says" in entry
            else ""
        )
        rows.append(
            f"<tr><th scope='row'>{escape(str(entry['name']))}{says}</th><td>{signed(entry['effect'])}</td>"
            f'<td aria-hidden="true">{drawn}</td></tr>'
        )
    how = f"<p class='mlf-how'>Ablated: {escape(replacement)}.</p>" if replacement else ""
    return f"<div><h3>{title}</h3><table><tbody>{''.join(rows)}</tbody></table>{how}</div>"


def live_answer(now: Any) -> str:
    """The last answer of a live session, the words so far, and how well it keeps up."""
    if now is None:
        return '<div class="mlf-empty"><p>Start the camera: an answer comes every two seconds.</p></div>'
    parts = []
    if now.prediction is not None:
        prediction = now.prediction
        parts.append(
            f'<p class="mlf-big"><strong data-testid="live-sentiment">{signed(prediction.sentiment)}</strong> '
            f"<em>{escape(prediction.verdict)}</em></p>"
        )
        face = prediction.clip.get("face_share")
        if face == 0:
            parts.append('<p class="mlf-found">No face in view: come closer to the camera.</p>')
    else:
        parts.append("<p>Listening and looking. The first answer takes longest.</p>")
    words = " ".join(word["word"] for word in now.words if word["end"] > now.seconds - LIVE_SPAN)
    parts.append(
        f'<p class="mlf-words" aria-label="Words of the last seconds">{escape(words) or "&nbsp;"}</p>'
    )
    behind = f", {now.dropped} pictures dropped to keep up" if now.dropped else ", no picture dropped"
    took = f", the last answer took {now.took:.1f} s" if now.answers else ""
    parts.append(
        f'<p class="mlf-found" data-testid="live-pace">{now.seconds:.0f} s, {now.answers} '
        f"answer{'' if now.answers == 1 else 's'}, {now.frames} pictures looked at{behind}{took}</p>"
    )
    if now.ended:
        parts.append(f'<p class="mlf-status" role="status">{escape(now.ended)}</p>')
    return f'<section class="mlf-answer">{"".join(parts)}</section>'
