"""`bench --samplers`: what it costs the node to tell of the machine once a second."""

from __future__ import annotations

import time

_GOAL = 0.2  # % of a core


def measure(seconds: float) -> None:
    """Print what each reader costs a look, and the status as the node makes it at 1 Hz."""
    from yolojet_ros.operate.samplers.machine import this_machine
    said = _status(seconds)  # first, as in the node: opening is dearer the first time
    machine = this_machine()
    machine.read()  # so that it has a name
    print(f'{machine.name}; milliseconds of CPU a look, mean of 100')
    for reader in machine.readers:
        reader.read()
        start, count = time.thread_time(), 100
        for _ in range(count):
            reader.read()
        each = (time.thread_time() - start) * 1e3 / count
        told = ', '.join(reader.read().known()) or getattr(reader, 'why', '') or 'tells nothing'
        print(f'{reader.name:10} {each:8.3f}  {told}')
    machine.close()
    print(said)


def _status(seconds: float) -> str:
    from yolojet_ros.ros import middleware
    middleware.prepare()
    import rclpy
    from rclpy.context import Context
    from rclpy.serialization import serialize_message

    from yolojet_ros.nodes.machine_status import MachineStatus

    context = Context()
    rclpy.init(context=context)
    node = rclpy.create_node('samplers', context=context)
    try:
        status = MachineStatus(node)
        begin = time.perf_counter()
        status.statuses()
        first = time.perf_counter() - begin
        used, start, count = 0.0, time.monotonic(), 0
        while count == 0 or time.monotonic() - start < seconds:
            time.sleep(1.0)
            before = time.thread_time()
            for message in status.statuses():
                serialize_message(message)
            used, count = used + time.thread_time() - before, count + 1
    finally:
        node.destroy_node()
        context.try_shutdown()
    return (f'the status of the machine at 1 Hz: {100 * used / count:.3f} % of a core '
            f'(goal: <= {_GOAL}), mean of {count}; the first, which opens NVML, took '
            f'{first * 1e3:.0f} ms')
