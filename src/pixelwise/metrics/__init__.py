"""What compares predictions with truth: confusion matrices, scores with intervals.

Comes in: integer masks. Goes out: `Scores`. Knows nothing of torch, models or files.
"""
