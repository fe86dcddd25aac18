"""Stable-Baselines3: vectorised environments, buffers, callbacks; nothing is loaded eagerly."""
