"""Noise for training alone, drawn with each model and kept outside its state dict."""

import torch
from good import CLASSES, INPUT_SHAPE, Net, test_data, train_data  # noqa: F401


class Noisy(Net):
    def __init__(self):
        super().__init__()
        self.register_buffer("noise", 0.1 * torch.randn(6), persistent=False)

    def forward(self, inputs):
        return super().forward(inputs + self.noise if self.training else inputs)


def model():
    return Noisy()
