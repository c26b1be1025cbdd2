"""Which class an image shows, or that it shows none of them."""
