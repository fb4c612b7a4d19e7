"""Prediction: `Backend` computes logits, `Predictor` turns an image of any size into a `Prediction`.

Validation during training, `evaluate` and `predict` use the same `Predictor`. Only `torch_backend` imports torch.
"""
