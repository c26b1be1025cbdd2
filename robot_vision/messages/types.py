"""The ROS message types that this package writes and reads without ROS.

`rosbags` knows the common interfaces and not vision_msgs, whose definitions stand here. They are those of
the released package: same names, types and order of fields, and so the same type hashes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

CLASSIFICATION: Final = "vision_msgs/msg/Classification"
LABEL_INFO: Final = "vision_msgs/msg/LabelInfo"
VISION_INFO: Final = "vision_msgs/msg/VisionInfo"
POSE_WITH_COVARIANCE_STAMPED: Final = "geometry_msgs/msg/PoseWithCovarianceStamped"
POSE_STAMPED: Final = "geometry_msgs/msg/PoseStamped"
TRANSFORM_STAMPED: Final = "geometry_msgs/msg/TransformStamped"
IMAGE: Final = "sensor_msgs/msg/Image"
CAMERA_INFO: Final = "sensor_msgs/msg/CameraInfo"
POINT_CLOUD: Final = "sensor_msgs/msg/PointCloud2"
LASER_SCAN: Final = "sensor_msgs/msg/LaserScan"
RANGE: Final = "sensor_msgs/msg/Range"
DIAGNOSTICS: Final = "diagnostic_msgs/msg/DiagnosticArray"

VISION_MSGS: Final = {
    "vision_msgs/msg/ObjectHypothesis": "string class_id\nfloat64 score\n",
    CLASSIFICATION: "std_msgs/Header header\nvision_msgs/ObjectHypothesis[] results\n",
    "vision_msgs/msg/VisionClass": "uint16 class_id\nstring class_name\n",
    LABEL_INFO: (
        "std_msgs/Header header\nvision_msgs/VisionClass[] class_map\nfloat32 threshold\n"
    ),
    VISION_INFO: (
        "std_msgs/Header header\nstring method\nstring database_location\nint32 database_version\n"
    ),
}


# The store has Humble's definitions. These have changed since, and bags get the newer ones on Humble too,
# where what a node publishes itself has no `variance`.
_SINCE_IRON: Final = {
    RANGE: (
        "uint8 ULTRASOUND=0\nuint8 INFRARED=1\nstd_msgs/Header header\nuint8 radiation_type\n"
        "float32 field_of_view\nfloat32 min_range\nfloat32 max_range\nfloat32 range\nfloat32 variance\n"
    )
}


def message_types() -> Typestore:
    """Returns a new store of the types of ROS 2 and of vision_msgs; the caller may add to it."""
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    types = {}
    for name in _SINCE_IRON:
        del store.fielddefs[name], store.types[name]
    for name, text in {**VISION_MSGS, **_SINCE_IRON}.items():
        types.update(get_types_from_msg(text, name))
    store.register(types)
    return store
