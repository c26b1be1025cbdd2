"""Filters measured on recordings."""
