"""Prediction: `Backend` computes logits, `Predictor` turns an image of any size into a `Prediction`.

Scores during training, `evaluate`, `predict` and exported models all use the same `Predictor`. Only `torch_backend` imports torch.
"""
