"""
The fields of the results' messages, which rosbags does not know.

They are those of vision_msgs 4 (Humble and later); a bag says them, so that it is read without.
"""

_GEOMETRY = 'geometry_msgs/PoseWithCovariance'

DEFINITIONS = {
    'vision_msgs/msg/Point2D': 'float64 x\nfloat64 y\n',
    'vision_msgs/msg/Pose2D': 'Point2D position\nfloat64 theta\n',
    'vision_msgs/msg/BoundingBox2D': 'Pose2D center\nfloat64 size_x\nfloat64 size_y\n',
    'vision_msgs/msg/ObjectHypothesis': 'string class_id\nfloat64 score\n',
    'vision_msgs/msg/ObjectHypothesisWithPose':
        f'ObjectHypothesis hypothesis\n{_GEOMETRY} pose\n',
    'vision_msgs/msg/Detection2D':
        'std_msgs/Header header\nObjectHypothesisWithPose[] results\nBoundingBox2D bbox\n'
        'string id\n',
    'vision_msgs/msg/Detection2DArray': 'std_msgs/Header header\nDetection2D[] detections\n',
    'vision_msgs/msg/Classification': 'std_msgs/Header header\nObjectHypothesis[] results\n',
}
