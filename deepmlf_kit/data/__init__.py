"""Datasets: one schema, the ways into it (MMSA pickles, folders of clips, the sample set), and batches out of it."""
