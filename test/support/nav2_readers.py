"""Messages as their subscribers read them, without ROS's packages of C++.

The readers ask what Nav2 (main of August 2026) and kiwicampus/semantic_segmentation_layer (April 2026) ask in
their sources; each says where.
"""

from __future__ import annotations

import numpy as np

FLOAT32, UINT8 = 7, 2  # of sensor_msgs/PointField


def floats(cloud, name: str) -> np.ndarray:
    """As PointCloud2Iterator<float> does: by the field's offset, from point to point by point_step."""
    (field,) = [f for f in cloud.fields if f.name == name]
    assert field.datatype == FLOAT32 and field.count == 1 and field.offset % 4 == 0
    assert not cloud.is_bigendian and cloud.point_step % 4 == 0
    points = np.frombuffer(bytes(cloud.data), np.uint8).reshape(-1, cloud.point_step)
    return points[:, field.offset : field.offset + 4].copy().view("<f4")[:, 0]


def costmap_reads(cloud) -> np.ndarray:
    """ObservationBuffer::bufferCloud copies from the first byte of `data` to the last, point by point."""
    assert cloud.header.frame_id and cloud.header.stamp.sec  # tf2 is asked for both
    assert cloud.row_step == cloud.width * cloud.point_step
    assert len(cloud.data) == cloud.height * cloud.row_step
    points = np.column_stack([floats(cloud, name) for name in "xyz"])
    # NaN compares false, so the limits of height drop such a point; only if z is NaN, though.
    assert np.array_equal(np.isnan(points).any(1), np.isnan(points[:, 2]))
    assert not cloud.is_dense or np.isfinite(points).all()
    return points[points[:, 2] >= -1e9]


def semantic_layer_reads(mask, confidence, cloud) -> list[tuple[int, int, np.ndarray]]:
    """syncSegmConfPointcloudCb and bufferSegmentation: one index for mask, confidence and cloud."""
    assert mask.width * mask.height == cloud.width * cloud.height
    assert len(mask.data) == len(confidence.data) == mask.width * mask.height  # data[v * width + u]
    assert mask.encoding == confidence.encoding == "mono8"
    for other in (confidence, cloud):  # ExactTime, and the frame of the cloud is tf's
        assert other.header.stamp == mask.header.stamp
    points = np.column_stack([floats(cloud, name) for name in "xyz"])
    rows = [i for i in range(len(points)) if np.isfinite(points[i, 2])]  # z alone is tested
    assert np.isfinite(points[rows]).all()
    return [(mask.data[i], confidence.data[i], points[i]) for i in rows]


def collision_monitor_reads_range(message) -> float | None:
    """validateMsg(Range), then Range::getSourceData: None where the reading is not believed."""
    numbers = (message.field_of_view, message.min_range, message.max_range, message.range)
    fine = message.header.frame_id and np.isfinite(numbers).all()
    fine = fine and 0 < message.field_of_view <= np.pi
    fine = fine and 0 <= message.min_range < message.max_range
    fine = fine and message.min_range <= message.range <= message.max_range
    return message.range if fine else None
