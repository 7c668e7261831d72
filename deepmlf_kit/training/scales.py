"""Label scales of the field's datasets, by the name of the scoring rules (`data.scale` of a preset)."""

#: Lowest and highest label; the sample set is scored as MOSI.
SCALES = {"mosi": (-3.0, 3.0), "mosei": (-3.0, 3.0), "sims": (-1.0, 1.0)}
