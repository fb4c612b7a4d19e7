"""Networks, pretrained weights, and the model folder. No loss, metric or training code belongs here."""
