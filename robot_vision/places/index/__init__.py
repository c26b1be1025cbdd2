"""The index of descriptors: exact where it can be, by inverted lists where it must."""
