"""A plan document as one HTML page that needs no network."""
