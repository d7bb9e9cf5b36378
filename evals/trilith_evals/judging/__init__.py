"""Judges: models that score answers by a rubric, held against people's verdicts before they are believed."""
