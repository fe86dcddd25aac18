"""Rewards for stored trajectories, with any prompt."""
