"""Evaluation: will this sentence train the behaviour, and did it?"""
