"""The camera player: a recording as a camera."""
