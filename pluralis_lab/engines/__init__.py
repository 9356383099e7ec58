"""What drives workers: virtual time in one process, or real processes over hivemind."""
