"""The only way from an image to a `Prediction`: what is scored in training is what is shipped.

Comes in: a model behind a backend, and pictures of any size. Goes out: predictions on the pictures' own grids. Knows nothing
of data sets, truth or training.
"""
