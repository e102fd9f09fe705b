"""The referee: a discrete-event simulation of the pools that the closed forms of serving describe."""
