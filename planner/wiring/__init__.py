"""From names and texts to the records every layer works on."""
