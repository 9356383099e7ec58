"""The waiting times that a run's contracts are deployed with."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Profile:
    """`challenge_window_s`: seconds between posting an epoch and paying it."""

    challenge_window_s: int


PROFILES = {
    "lab": Profile(challenge_window_s=0),
    "public": Profile(challenge_window_s=3 * 24 * 3600),
}
