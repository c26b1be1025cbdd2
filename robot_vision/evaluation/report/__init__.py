"""Numbers as text, tables, figures and a page."""
