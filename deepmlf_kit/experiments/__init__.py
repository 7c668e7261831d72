"""Experiments: several trainings and one table."""
