"""How much a worker takes on beside its training; the supervisor, which loads no torch, knows it too."""

MAX_QUESTIONS = 4
"""Texts that a head writes at once, each of which may hold a copy of every stage's weights; and evaluations."""
