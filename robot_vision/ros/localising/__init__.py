"""The localiser node: a lost robot looks round until its pose is sure."""
