"""Search: how many of which instances meet the SLOs at the least cost."""
