"""The public verbs, one module each; ``planner.library`` gathers them."""
