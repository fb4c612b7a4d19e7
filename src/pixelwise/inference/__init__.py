"""The only way from an image to a `Prediction`: what is scored in training is what is shipped.

Comes in: a model behind a backend, and images of any size. Goes out: predictions on the images' own grids. Knows nothing
of data sets, truth or training.
"""
