"""Learning masks: scores, masking functions, schedules, heads, and the training stage."""
