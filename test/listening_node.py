"""A node called operator: hears images and detections, sets a parameter; says what it could."""

import json
import sys
import time

from rcl_interfaces.srv import SetParameters
import rclpy
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray


def main(seconds):
    """Try for so many seconds at most; print the outcome as JSON."""
    rclpy.init()
    node = rclpy.create_node('operator')
    heard = {'images': 0, 'detections': 0}

    def listen(kind, topic, name, qos):
        node.create_subscription(
            kind, topic, lambda _: heard.update({name: heard[name] + 1}), qos)

    listen(Image, 'image_raw', 'images', qos_profile_sensor_data)
    listen(Detection2DArray, 'detections', 'detections', 10)
    client = node.create_client(SetParameters, '/detector/set_parameters')
    answer = None
    end = time.monotonic() + seconds
    while time.monotonic() < end and not (all(heard.values()) and answer and answer.done()):
        rclpy.spin_once(node, timeout_sec=0.05)
        if answer is None and client.service_is_ready():
            answer = client.call_async(SetParameters.Request(
                parameters=[Parameter('score_threshold', value=0.125).to_parameter_msg()]))
    done = bool(answer and answer.done() and answer.result().results[0].successful)
    print(json.dumps({**heard, 'set': done, 'nodes': sorted(node.get_node_names())}), flush=True)
    rclpy.shutdown()


if __name__ == '__main__':
    main(float(sys.argv[1]))
