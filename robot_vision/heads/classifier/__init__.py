"""Which class an image shows, or that it shows none of them."""

from robot_vision.heads.classifier.head import HEAD

__all__ = ["HEAD"]
