"""Kernels of the reward path and their PyTorch twins, installed as `vlmrm_fast.kernels`."""
