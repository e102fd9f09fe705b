"""Import what others wrote: request traces, model configurations, measured runs."""
