"""The nouns: frozen records with units in their names. They know no cost and no file."""
