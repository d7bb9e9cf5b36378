"""The built-in scorers, one module per subject; `trilith_evals.scorer.build` loads them by name."""
