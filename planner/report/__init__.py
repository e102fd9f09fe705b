"""Formatting only: JSON documents and terminal tables."""
