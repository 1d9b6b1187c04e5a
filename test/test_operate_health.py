"""How a node is judged by its statuses, without ROS."""

import pytest

from yolojet_ros.operate.health import Heard, judge, seconds_of_process, Status

_GOOD = {'rate_out_hz': '29.9', 'age_ms_p50': '12.3', 'model': 'm.engine', 'backend': 'tensorrt'}


def _heard(*levels, age=0.5, live=False, message='detecting'):
    return Heard([Status(f'/front/detector: detector {number}', level, message, '', _GOOD)
                  for number, level in enumerate(levels)], age, live)


@pytest.mark.parametrize('heard, strict, healthy, words', [
    (_heard(0), False, True, '/front/detector is well: detector 0: detecting, 29.9 results/s, '
                             '12 ms old, m.engine by tensorrt'),
    (_heard(0, 1), False, True, 'is well: '), (_heard(0, 1), True, False, 'warns: '),
    (_heard(0, 0), True, True, 'is well: '),
    (_heard(0, 2), False, False, 'is not well: detector 0: detecting'),
    (_heard(3), False, False, 'is not well: '),
    (_heard(0, age=3.0), False, False, 'has said nothing for 3 s (its last word: detecting)'),
    (_heard(0, age=1.7e9, live=True), False, True, 'is well'),  # simulated time
    (_heard(0, age=-60.0), False, False, 'has said nothing'),  # a clock that goes ahead
    (Heard(), False, False, '/front/detector does not answer on /diagnostics of ROS_DOMAIN_ID'),
    (Heard(others=['/rear/detector']), False, False, '(heard were /rear/detector)'),
    (_heard(0, message='a\nb\x1b[2J'), False, True, 'detector 0: a b?[2J'),
])
def test_judgement(heard, strict, healthy, words):
    verdict = judge('/front/detector', heard, strict)
    assert verdict.healthy == healthy and words in verdict.sentence
    assert '\n' not in verdict.sentence


def test_all_cameras_of_a_node_are_told():
    sentence = judge('/front/detector', _heard(0, 1, 2)).sentence
    assert all(f'detector {number}: ' in sentence for number in range(3))


def test_the_age_of_the_process_is_known():
    import time
    before = seconds_of_process()
    time.sleep(0.05)
    assert 0 < before < 3600 and 0.03 < seconds_of_process() - before < 5


def test_whatever_somebody_writes_into_diagnostics_it_is_one_line():
    values = {'rate_out_hz': 'many', 'age_ms_p50': 'nan', 'model': 'm\n\x1b[2J' + 'x' * 10**5}
    heard = Heard([Status('/a: det\nector' + 'y' * 10**5, 0, 'ok', '', values)], 0.1)
    verdict = judge('/a', heard)
    assert verdict.healthy and len(verdict.sentence) < 2000
    assert not set(verdict.sentence) & set('\n\x1b')
