"""The command line, one module for commands that belong together; ``app`` gathers them."""
