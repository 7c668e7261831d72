"""Several trainings and what they show together: the demo, the table of modalities, a run repeated."""
