"""The referee: an event-by-event simulation of the pools that the closed forms describe."""
