"""How the app's three example clips were made: faces drawn from blendshapes, voices synthesized from eGeMAPS.

`make` holds the scripts and writes the clips, `drawn_face` the frames, `synthetic_voice` the sound. Both follow the
tracks of the sample set (`deepmlf_kit.data.sample_signals`). The command is `scripts/make_examples.py`.
"""
