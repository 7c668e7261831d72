"""The model card of a shipped checkpoint: what it was trained on, what it says of people, what it cannot do."""

from __future__ import annotations

from deepmlf_kit.rendering.tables import Table, number
from deepmlf_kit.training import Run

_LMS = {
    "embedded": "the kit's embedded one, frozen",
    "smollm2": "SmolLM2-135M-Instruct (Apache-2.0), frozen; `deepmlf fetch smollm2` brings it",
}
_TAUGHT = (
    "Besides, sentences that SmolLM2-135M-Instruct made up (Apache-2.0) and parts of VADER's, which nobody rated: the kit's "
    "checkpoint on SmolLM2 did (knowledge distillation)."
)
_MEASURED = {
    "mosi_valid": "CMU-MOSI, validation texts (lower case, no punctuation)",
    "mosei_test": "CMU-MOSEI, test texts (punctuated)",
    "everyday": "35 plain spoken sentences",
    "faces": "labelled faces of unseen persons, a neutral sentence",
    "voices": "acted voices (RAVDESS), a neutral sentence",
}


def card(run: Run, moved: float, scores: dict[str, dict[str, float]]) -> str:
    """The card as Markdown.

    Args:
        run: the training.
        moved: how far half precision moves a prediction at most.
        scores: what `score.py --json` printed.
    """
    preset, calibration = run.preset, run.info["calibration"]
    taught = " " + _TAUGHT if preset.lm.name == "embedded" else ""
    layers = ", ".join(map(str, preset.fusion.layers))
    facts = Table(
        ["", ""],
        [
            ["language model", _LMS[preset.lm.name]],
            [
                "fusion",
                f"{preset.fusion.tokens} fusion tokens, MM Blocks after layers {layers}, feed-forward: "
                f"{preset.fusion.ffw} (rank {preset.fusion.lora_r})",
            ],
            ["trained on", f"{run.info['dataset']['rows']['train']:,} utterances"],
            ["weights", f"half precision, which moves a prediction by at most {moved:.3f}"],
            *(
                [["texts", "read with a full stop where they end without a mark"]]
                if preset.data.full_stop
                else []
            ),
            ["scale", "-3 (strongly negative) to +3 (strongly positive)"],
        ],
    )
    people = Table(
        ["", "head", "r", "right signs", "AUC", "moved by a final stop"],
        [
            [_MEASURED[name.split(".")[0]], name.split(".")[1]]
            + [
                number(values[key]) if key in values else ""
                for key in ("r", "sign", "auc", "moved_by_final_stop")
            ]
            for name, values in scores.items()
        ],
    )
    sure = Table(
        ["there is", "half-width", "held-out share inside", "sign not told below", "validation utterances"],
        [
            [
                streams.replace("+", ", "),
                number(width),
                number(calibration["held_out"].get(streams, float("nan"))),
                number(calibration["zones"][streams]),
                str(calibration["utterances"][streams]),
            ]
            for streams, width in calibration["half_widths"].items()
        ],
    )
    return f"""---
license: apache-2.0
tags: [multimodal, sentiment-analysis, deepmlf]
---

# DeepMLF checkpoint on {preset.lm.name}

{facts.markdown()}
**Trained on.** The words: 23,700 sentences with the mean rating of 20 people each (VADER: tweets, film and product
reviews, newspaper sentences; Hutto and Gilbert 2014, MIT licence), in several forms (case, punctuation, fillers, contractions),
short phrases of the words that VADER's raters rated one by one, and plain sentences of everyday talk with the label 0.{taught} The faces: MediaPipe blendshapes of press photographs with the
expression people labelled (the mean label of faces that look alike), moved as talking faces move. The voices: synthetic, coloured along the directions in which real
happy and unhappy voices differ relative to the speaker (read off RAVDESS; no clip of it trained a weight). Voice and face
together: the rule of CREMA-D's votes (ODbL 1.0): 0.23 voice + 0.84 face. Irony, kind words with the eyes rolled and face
and voice at odds, in one joint utterance of twelve. How much words count beside voice and face is an assumption: words as
rated, voice and face half as much beside strong words as beside neutral ones.

## What it says of people

Pearson r with people's ratings; none of these utterances trained a weight.

{people.markdown()}
## How sure it is

An answer comes with an interval that holds {calibration["coverage"]:.0%} of the labels of utterances like those of its training
(measured on validation data, checked on test data). Close to 0 it does not tell a sign: beyond that zone, where
{calibration["held_out_signs"]["share"]:.0%} of the test answers are, {calibration["held_out_signs"]["right"]:.0%} of
the signs were right (a label of 0 has none, so that any is wrong). Real recordings are not like them: take it as a lower bound.

{sure.markdown()}
## What it cannot do

It tells how words, voice and face are usually read, not what somebody feels. **Not for judging people**: not for hiring, grading,
policing, diagnosis, lie detection or advertising. Of voices it tells very little. Faces were press photographs of well-known
people, labelled by others; expressions differ between people and cultures, and it was not checked on any group. English
only. Irony without a roll of the eyes, quotations, and what a sentence means in its context are beyond it.

Made by `python -m scripts.people_checkpoint.make`.
"""
