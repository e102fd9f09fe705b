"""Plans as files that engines and orchestrators read: flags, manifests, scripts, instructions."""
