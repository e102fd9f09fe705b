"""Traffic queues for steps: latencies, occupancy and goodput from an instance's step-time law."""
