"""The node that people write today: the yardstick.

Convert the message, make a PIL image, apply torchvision's transforms, and run one torch model for each of
three tasks in the callback. Everything in it is what tutorials and popular packages do.
"""

from __future__ import annotations

import numpy as np
import rclpy
import torch
from geometry_msgs.msg import PoseWithCovarianceStamped
from PIL import Image as PilImage
from rclpy.node import Node
from sensor_msgs.msg import Image
from torchvision import models, transforms
from vision_msgs.msg import Classification, ObjectHypothesis

from benchmarks.models import LABELS, SPECS
from robot_vision.heads.place.poolings.netvlad import NetVladHead
from robot_vision.ros.node.dds import use_large_image_profile


class TodaysNode(Node):
    """Three models, one callback."""

    def __init__(self) -> None:
        super().__init__("todays_node")
        self.transform = transforms.Compose(
            [
                transforms.Resize((224, 224)),
                transforms.ToTensor(),
                transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        )
        self.classifier = models.resnet18(num_classes=len(LABELS)).eval()
        self.posenet = models.resnet18(num_classes=7).eval()
        self.place_features = torch.nn.Sequential(*list(models.resnet18().children())[:-2]).eval()
        place = SPECS["three_heads"].heads["place"]
        assert place is not None
        self.netvlad = NetVladHead(place, (512, 7, 7)).eval()
        prefix = "~/camera"
        self.classification = self.create_publisher(Classification, f"{prefix}/classification", 10)
        self.pose = self.create_publisher(PoseWithCovarianceStamped, f"{prefix}/pose", 10)
        self.descriptor = self.create_publisher(Image, f"{prefix}/descriptor", 10)
        self.create_subscription(
            Image, "/camera/image_raw", self.on_image, rclpy.qos.qos_profile_sensor_data
        )

    @torch.no_grad()
    def on_image(self, message: Image) -> None:
        """Answers one image."""
        # What cv_bridge's imgmsg_to_cv2(message, "rgb8") gives.
        pixels = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)
        batch = self.transform(PilImage.fromarray(pixels)).unsqueeze(0)

        probabilities = torch.softmax(self.classifier(batch), dim=1)[0]
        top = torch.topk(probabilities, 3)
        classification = Classification(header=message.header)
        for score, index in zip(top.values, top.indices, strict=True):
            hypothesis = ObjectHypothesis(class_id=LABELS[int(index)], score=float(score))
            classification.results.append(hypothesis)
        self.classification.publish(classification)

        values = self.posenet(batch)[0].tolist()
        pose = PoseWithCovarianceStamped(header=message.header)
        point, turn = pose.pose.pose.position, pose.pose.pose.orientation
        point.x, point.y, point.z = values[:3]
        turn.x, turn.y, turn.z, turn.w = values[3:]
        self.pose.publish(pose)

        vector = self.netvlad(self.place_features(batch))["descriptor"][0].numpy()
        descriptor = Image(header=message.header, height=1, width=len(vector), encoding="32FC1")
        descriptor.step = vector.nbytes
        descriptor.data = vector.tobytes()
        self.descriptor.publish(descriptor)


def main() -> None:
    """Spins until it is stopped."""
    use_large_image_profile()
    rclpy.init()
    node = TodaysNode()
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
        pass
    except rclpy._rclpy_pybind11.RCLError:  # it was ended amid a callback
        if rclpy.ok():
            raise


if __name__ == "__main__":
    main()
