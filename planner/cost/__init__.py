"""Work × hardware → seconds and joules; steps as an engine composes them."""
