"""What a run looks like: one picture folded from the store's events, shown live, as a stored record, as figures and as tables."""
