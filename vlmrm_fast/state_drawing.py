"""Frames of a list of states of a task."""
