"""The five deraining systems as plain PyTorch."""
