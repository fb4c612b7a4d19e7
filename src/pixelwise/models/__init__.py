"""The networks: raw pixel values in, logits of the same size out, and the folder in which their weights live.

Comes in: tensors, and the names of architectures. Goes out: tensors, and model folders. Knows nothing of data sets, losses,
metrics or training.
"""
