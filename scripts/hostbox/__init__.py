"""Hosts for scripts/host: one module for each, and what they share."""
