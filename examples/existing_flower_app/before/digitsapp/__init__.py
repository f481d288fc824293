"""digitsapp: A Flower / PyTorch app."""
