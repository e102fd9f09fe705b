"""From files to records: YAML with lines, overlays by name, one clear sentence per mistake."""
