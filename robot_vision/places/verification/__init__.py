"""Geometric verification: do the query's local features fit the place, and where exactly was the camera?

`options` says what can be set, `builder` makes the structure of a map's keyframes (local features and
triangulated points), `verifier` compares a query with it. It is off unless somebody asks for it.
"""
